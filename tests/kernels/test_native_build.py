"""Building native code: the compiler, the library that it makes, and where that is kept."""

import hashlib
import os
import tempfile
import threading
import time
from pathlib import Path

import pytest
from code_folders import OTHER, compiler, compiles, forget, make, quietly, root, system_compiler

from sparseq_kernels.cpu import native
from sparseq_kernels.cpu.native import build
from sparseq_kernels.cpu.native import compiler as compiling

pytestmark = pytest.mark.usefixtures("folder")


RUN = """
import torch, sparseq_kernels
print(torch.ops.sparseq.quantize_rows(torch.ones(1, 2))[0].tolist(), sparseq_kernels.backend())
"""


def test_without_any_folder_that_can_be_written(monkeypatch, tmp_path):
    """As in a container with a read-only file system: there is no native code, and nothing fails."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("SPARSEQ_CACHE", str(tmp_path / "file" / "cache"))

    def no_folder(*args, **kwargs):
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "mkdtemp", no_folder)
    with pytest.warns(UserWarning, match="temporary folder"), pytest.raises(build.UnavailableError, match="no place"):
        build.load(native.SOURCES)


@compiles
@pytest.mark.usefixtures("quick_compiler")
@root
def test_code_that_another_user_planted_is_not_run(folder):
    quietly(make)
    [built] = (folder / "native").glob("*.so")
    os.chown(built, OTHER, OTHER)  # as one that was put there while the folder was open to all
    before = built.stat().st_ino
    forget()
    quietly(make)
    [again] = (folder / "native").glob("*.so")
    assert again.stat().st_uid == os.geteuid() and again.stat().st_ino != before


@compiles
@pytest.mark.usefixtures("quick_compiler")
def test_a_private_folder_is_removed_when_the_process_ends(folder, tmp_path, fresh):
    (folder / "native").mkdir(parents=True)
    (folder / "native").chmod(0o777)
    (tmp_path / "temporary").mkdir()
    done = fresh.run(RUN, TMPDIR=str(tmp_path / "temporary"))
    assert done.stdout == "[[127, 127]] native\n" and "builds its native code anew in every process" in done.stderr
    assert not list((tmp_path / "temporary").iterdir()) and not list((folder / "native").iterdir())


@compiles
@pytest.mark.usefixtures("quick_compiler")
@pytest.mark.parametrize(
    "harm", ["cut", *(pytest.param(h, marks=pytest.mark.slow) for h in ("emptied", "changed", "renamed", "a link"))]
)
def test_a_library_of_other_bytes_is_built_anew(folder, harm, tmp_path, fresh):
    quietly(make)
    [built] = (folder / "native").glob("*.so")
    content, name = built.read_bytes(), built.name
    # Another file, for this process has the first one mapped.
    built.unlink()
    changed = {"cut": content[:4096], "emptied": b"", "changed": content[:-1] + bytes([content[-1] ^ 1])}
    if harm == "a link":
        (tmp_path / "code").write_bytes(content)
        built.symlink_to(tmp_path / "code")
    elif harm == "renamed":
        built = built.with_name(f"{name.partition('-')[0]}-{'0' * 64}.so")
        built.write_bytes(content)
    else:
        built.write_bytes(changed[harm])
    if harm == "cut":  # To load it would end the process, by SIGBUS.
        done = fresh.run(RUN)
        assert done.stdout == "[[127, 127]] native\n", done.stderr
    else:
        forget()
        quietly(make)
    [again] = (folder / "native").iterdir()
    assert again.read_bytes() == content and again.name == name and not again.is_symlink()


@compiles
@pytest.mark.usefixtures("quick_compiler")
def test_a_sound_library_of_another_system_is_built_anew(folder, monkeypatch):
    quietly(make)
    [built] = (folder / "native").glob("*.so")
    other = b"no library at all"
    planted = built.with_name(f"{built.name.partition('-')[0]}-{hashlib.sha256(other).hexdigest()}.so")
    planted.write_bytes(other)
    planted.chmod(0o700)
    built.unlink()
    forget()
    quietly(make)
    assert [path.name for path in (folder / "native").iterdir()] == [built.name]


@compiles
@pytest.mark.usefixtures("quick_compiler")
def test_what_is_written_is_on_the_disk_before_it_has_its_name(folder, monkeypatch):
    order = []
    real_sync, real_replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: order.append("fsync") or real_sync(fd))
    monkeypatch.setattr(os, "replace", lambda a, b: order.append("replace") or real_replace(a, b))
    quietly(make)
    assert order == ["fsync", "replace", "fsync"]


@compiles
@pytest.mark.usefixtures("quick_compiler")
def test_a_full_disk_costs_the_cache_and_nothing_else(folder, monkeypatch):
    real = os.fsync

    def full(descriptor):
        if Path(os.readlink(f"/proc/self/fd/{descriptor}")).is_relative_to(folder):
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.warns(UserWarning, match="cannot be kept: .*No space left"):
        make()
    assert not list((folder / "native").iterdir())


def why_not(monkeypatch, path):
    monkeypatch.setenv("CC", str(path))
    forget()
    return str(native.why_not())


def test_a_compiler_may_speak_any_encoding(tmp_path, monkeypatch, folder):
    path = compiler(tmp_path, r"printf 'datei: Fehler: ung\374ltige Option\n' >&2; exit 1")
    assert "could not build it: datei: Fehler: ung\ufffdltige Option" in why_not(monkeypatch, path)
    assert not list((folder / "native").iterdir())


def test_a_compiler_is_asked_for_plain_messages(tmp_path, monkeypatch):
    assert why_not(monkeypatch, compiler(tmp_path, 'echo "error in $LC_ALL"; exit 1')).endswith("error in C")


def test_the_fault_is_quoted_and_not_what_comes_before_it(tmp_path, monkeypatch):
    script = 'echo "In file included from x.c:1:" >&2; echo "x.c:2: fatal error: math.h: No such file" >&2; exit 1'
    assert "could not build it: x.c:2: fatal error: math.h" in why_not(monkeypatch, compiler(tmp_path, script))
    assert why_not(monkeypatch, compiler(tmp_path, "exit 3")).endswith("no message")


def test_a_compiler_that_makes_nothing(tmp_path, monkeypatch):
    assert "it could not be built: " in why_not(monkeypatch, compiler(tmp_path, "exit 0"))


def test_a_compiler_that_hangs_is_ended_with_all_that_it_started(tmp_path, monkeypatch):
    monkeypatch.setattr(compiling, "TIMEOUT", 0.5)
    path = compiler(tmp_path, f"sleep 60 & echo $! > {tmp_path}/child; wait")
    started = time.monotonic()
    assert "did not end within 0.5 seconds" in why_not(monkeypatch, path)
    assert time.monotonic() - started < 30
    child = int((tmp_path / "child").read_text())
    for _ in range(100):
        status = Path(f"/proc/{child}/stat")
        if not status.exists() or status.read_text().split(") ")[1][0] == "Z":
            break
        time.sleep(0.1)
    else:
        pytest.fail("what the compiler started is still running")


@compiles
def test_a_compiler_may_come_with_arguments(monkeypatch, folder):
    monkeypatch.setenv("CC", f"{system_compiler()} -DUNUSED='a b'")
    quietly(make)
    assert len(list((folder / "native").glob("*.so"))) == 1


@compiles
def test_two_that_build_at_once(folder):
    threads = [threading.Thread(target=build.load, args=(native.SOURCES,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    [kept] = (folder / "native").iterdir()
    assert kept.stem.endswith(hashlib.sha256(kept.read_bytes()).hexdigest())


@compiles
@root
@pytest.mark.parametrize("home", ["read-only", "absent"])
def test_a_user_whose_home_cannot_be_written(home, fresh):
    """As another user, in a process of its own: root may write everywhere."""
    with tempfile.TemporaryDirectory() as above, tempfile.TemporaryDirectory() as temporary:
        os.chmod(above, 0o755)
        os.chmod(temporary, 0o1777)
        if home == "read-only":
            (Path(above) / "home").mkdir(mode=0o555)
        # Python's own files may be out of that user's reach: what is needed is imported before.
        code = "import os, locale, torch; from sparseq_kernels import cache; from sparseq_kernels.cpu import native; "
        code += (
            f"os.setgid({OTHER}); os.setuid({OTHER}); print(native.quantize_rows(torch.ones(1, 2), 8)[0].tolist()); "
        )
        code += "print(cache.cache_dir())"
        done = fresh.run(code, HOME=f"{above}/home", SPARSEQ_CACHE=None, TMPDIR=temporary)
        assert done.stdout.startswith("[[127, 127]]\n"), done.stderr
        assert done.stdout.splitlines()[1].startswith(f"{above}/home/.cache/sparseq") == (home == "read-only")
        assert ("builds its native code anew" in done.stderr) == (home == "read-only")
        assert len(list(Path(temporary).rglob("*.so"))) == (home == "absent")
