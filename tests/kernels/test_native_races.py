"""Ten processes that need the native code at once, where it was never built."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from code_folders import compiler, compiles, system_compiler

from sparseq_kernels.cpu import native

pytestmark = [compiles, pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")]

# Forked before they know of any library, and held until all are there.
RACE = """
import os, torch
from sparseq_kernels.cpu import native
held, go = os.pipe()
children = []
for _ in range(10):
    child = os.fork()
    if not child:
        os.close(go)
        os.read(held, 1)
        found, scale = native.quantize_rows(torch.tensor([[1.0, -1.0]]), 8)
        os._exit(0 if found.tolist() == [[127, -127]] else 1)
    children.append(child)
os.close(go)
print(sorted(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))
"""


def race(tmp_path, script):
    """Exit codes; how often the compiler was called; and the files of the cache."""
    path = compiler(tmp_path, f'echo "$@" >> {tmp_path}/calls\n{script}\nexec {system_compiler()} "$@"')
    (tmp_path / "temporary").mkdir()
    environment = os.environ | {
        "CC": str(path),
        "SPARSEQ_CACHE": str(tmp_path / "cache"),
        "TMPDIR": str(tmp_path / "temporary"),
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    done = subprocess.run([sys.executable, "-c", RACE], env=environment, capture_output=True, text=True, check=False)
    calls = (tmp_path / "calls").read_text().splitlines()
    return done.stdout.strip() + done.stderr, len(calls), list((tmp_path / "cache" / "native").iterdir())


def is_whole(kept: Path):
    return kept.suffix == ".so" and kept.stem.endswith(hashlib.sha256(kept.read_bytes()).hexdigest())


# It says whether it is clang, compiles each file, and links.
CALLS = len(native.SOURCES) + 2


@pytest.mark.slow
def test_ten_processes_at_first_use(tmp_path):
    exits, calls, kept = race(tmp_path, "")
    assert exits == str([0] * 10)
    assert calls == CALLS, "more than one of them built it"
    assert len(kept) == 1 and is_whole(kept[0])


@pytest.mark.slow
def test_the_first_builder_is_killed(tmp_path):
    kill = f"if mkdir {tmp_path}/killed 2> {tmp_path}/again; then kill -9 $PPID; fi"
    exits, calls, kept = race(tmp_path, kill)
    assert exits == str([-9, *[0] * 9])
    assert calls == 1 + CALLS
    assert len(kept) == 1 and is_whole(kept[0])


def test_what_a_killed_builder_has_written_is_removed(tmp_path):
    """Killed while it writes the library into the cache, where the next one finds half of it."""
    source = tmp_path / "one.c"
    source.write_text("int one(void) { return 1; }\n")
    code = f"""
import os, pathlib, signal, torch
from sparseq_kernels.cpu.native import build
sources = [pathlib.Path({str(source)!r})]
child = os.fork()
if not child:
    os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
    build.load(sources)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
folder = build.code_dir("native")
print([path.suffix for path in folder.iterdir()])
print(build.load(sources).one(), [path.suffix for path in folder.iterdir()])
"""
    environment = os.environ | {"SPARSEQ_CACHE": str(tmp_path / "cache"), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "-9\n['.part']\n1 ['.so']\n", done.stdout + done.stderr


def test_a_builder_that_takes_too_long_is_not_waited_for(tmp_path, monkeypatch, folder):
    """Nor is a lock that a process holds without building."""
    from sparseq_kernels.cpu.native import build
    from sparseq_kernels.cpu.native import compiler as compiling
    from sparseq_kernels.locks import lock

    source = tmp_path / "one.c"
    source.write_text("int one(void) { return 1; }\n")
    held = os.open(build.code_dir("native"), os.O_RDONLY)
    lock(held)
    monkeypatch.setattr(compiling, "TIMEOUT", 1)
    try:
        assert build.load([source]).one() == 1
    finally:
        os.close(held)
