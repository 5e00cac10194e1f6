"""Releases that pip fetches, checked against their sha256 and kept in the cache."""

import hashlib
import io
import os
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from sparseq import downloads
from sparseq.downloads import Download, download_dir, fetch, tree_sha256
from sparseq.errors import InputError


def _tar(path: Path, members: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
    return path.read_bytes()


def _download(archive: bytes, tmp_path: Path, kept: dict[str, bytes], name: str = "toy-1.0.tar.gz") -> Download:
    tree = tmp_path / "expected"
    for path, content in kept.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_bytes(content)
    sha256 = hashlib.sha256(archive).hexdigest()
    return Download("a toy", "toy", "1.0", name, len(archive), sha256, ("toy-1.0/data/",), tree_sha256(tree))


class FakePip:
    """Stands for the package index: `pip download` drops `content` into the folder it is told."""

    def __init__(self, content: bytes, name: str = "toy-1.0.tar.gz", returncode: int = 0, stderr: str = "") -> None:
        self.content, self.name, self.returncode, self.stderr = content, name, returncode, stderr
        self.commands: list[list[str]] = []

    def __call__(self, command: list[str], **_: object) -> "subprocess.CompletedProcess[str]":
        self.commands.append(command)
        self.requirements = Path(command[command.index("--requirement") + 1]).read_text()
        if self.returncode == 0:
            (Path(command[command.index("--dest") + 1]) / self.name).write_bytes(self.content)
        return subprocess.CompletedProcess(command, self.returncode, "", self.stderr)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPARSEQ_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Download, FakePip]:
    content = _tar(tmp_path / "made.tar.gz", {"toy-1.0/data/a.txt": b"alpha", "toy-1.0/setup.py": b"raise SystemExit"})
    pip = FakePip(content)
    monkeypatch.setattr(subprocess, "run", pip)
    return _download(content, tmp_path, {"toy-1.0/data/a.txt": b"alpha"}), pip


def test_fetches_once_and_says_so(
    toy: tuple[Download, FakePip], cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    download, pip = toy
    folder = fetch(download)
    assert folder == download_dir(download) == cache / "toy-1.0"
    assert [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()] == ["toy-1.0/data/a.txt"]
    assert pip.requirements == f"toy==1.0 --hash=sha256:{download.sha256}\n"
    assert {"--require-hashes", "--no-deps", "--no-binary"} <= set(pip.commands[0])
    said = capfd.readouterr()
    assert said.out == "" and "downloading a toy (toy 1.0 from the package index, 0.0 MB)" in said.err
    assert fetch(download) == folder
    assert len(pip.commands) == 1 and capfd.readouterr().err == ""
    assert os.listdir(cache) == ["toy-1.0"]


def test_altered_cache_is_fetched_again(
    toy: tuple[Download, FakePip], cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    download, pip = toy
    (fetch(download) / "toy-1.0" / "data" / "a.txt").write_text("other")
    assert (fetch(download) / "toy-1.0" / "data" / "a.txt").read_text() == "alpha"
    assert len(pip.commands) == 2 and "was changed after it was unpacked" in capfd.readouterr().err
    assert os.listdir(cache) == ["toy-1.0"]


def test_wrong_archive_leaves_nothing(toy: tuple[Download, FakePip], cache: Path) -> None:
    download, pip = toy
    pip.content += b" "
    with pytest.raises(InputError, match="does not have the sha256"):
        fetch(download)
    assert os.listdir(cache) == []


def test_pip_failure_gives_the_reason_and_the_ways_out(toy: tuple[Download, FakePip], cache: Path) -> None:
    download, pip = toy
    pip.returncode, pip.stderr = 1, "WARNING: slow\nERROR: No matching distribution found for toy==1.0\n"
    with pytest.raises(
        InputError, match=r"No matching distribution.*package index, or copy the folder toy-1\.0"
    ) as told:
        fetch(download)
    assert "\n" not in str(told.value) and os.listdir(cache) == []


def test_missing_pip(toy: tuple[Download, FakePip], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("SPARSEQ_CACHE", str(tmp_path / "cache"))
    (tmp_path / "hide").mkdir()
    (tmp_path / "hide" / "pip.py").write_text("raise ImportError('No module named pip')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "hide"))
    with pytest.raises(InputError, match="No module named pip"):
        fetch(toy[0])


def test_unwritable_cache(toy: tuple[Download, FakePip], cache: Path) -> None:
    cache.write_text("a file stands where the folder should be")
    with pytest.raises(InputError, match="set SPARSEQ_CACHE to a folder that can be written"):
        fetch(toy[0])


def test_another_process_may_be_quicker(
    toy: tuple[Download, FakePip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    download, pip = toy
    rename = os.rename

    def late(source: Path, target: Path) -> None:
        monkeypatch.setattr(os, "rename", rename)
        rename(tmp_path / "expected", target)
        rename(source, target)

    monkeypatch.setattr(os, "rename", late)
    assert tree_sha256(fetch(download)) == download.tree_sha256
    assert len(pip.commands) == 1


@pytest.mark.parametrize("bad", ["toy-1.0/data/../../../../evil.txt", "toy-1.0/data/link"])
def test_hostile_tar_cannot_reach_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: str) -> None:
    links = {bad: "/etc/passwd"} if bad.endswith("link") else {}
    members = {"toy-1.0/data/a.txt": b"alpha"} | ({} if links else {bad: b"evil"})
    content = _tar(tmp_path / "made.tar.gz", members, links)
    monkeypatch.setattr(subprocess, "run", FakePip(content))
    download = _download(content, tmp_path, {"toy-1.0/data/a.txt": b"alpha"})
    if links:
        assert not (fetch(download) / bad).exists()
    else:
        with pytest.raises(InputError, match="cannot unpack a toy"):
            fetch(download)
    assert not list(tmp_path.parent.glob("**/evil.txt"))


def test_wheels_are_unpacked_and_never_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "made.whl", "w") as wheel:
        wheel.writestr("toy-1.0/data/a.txt", "alpha")
        wheel.writestr("toy-1.0/code.py", "x")
    content = (tmp_path / "made.whl").read_bytes()
    pip = FakePip(content, "toy-1.0-py3-none-any.whl")
    monkeypatch.setattr(subprocess, "run", pip)
    folder = fetch(_download(content, tmp_path, {"toy-1.0/data/a.txt": b"alpha"}, pip.name))
    assert (folder / "toy-1.0" / "data" / "a.txt").read_text() == "alpha"
    assert "--only-binary" in pip.commands[0] and "--no-binary" not in pip.commands[0]


def test_default_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPARSEQ_CACHE")
    assert downloads.cache_dir() == Path.home() / ".cache" / "sparseq"
