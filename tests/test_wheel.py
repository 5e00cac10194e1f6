"""The wheel and the source distribution: what is in them, and that the wheel works where there is little else."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from sparseq_kernels.cpu.native import compiler, prebuilt
from sparseq_kernels.instruction_sets import SETS, available
from tools import bare as bare_environment

ROOT = Path(__file__).parent.parent
NATIVE = "sparseq_kernels/cpu/native"
# Other tests may have registered sets that no processor has.
SHIPPED = [name for name in SETS if not name.startswith("emulated")]
USABLE = [name for name in available() if name in SHIPPED]
LIBRARIES = {f"{NATIVE}/libraries/{name}" for name in ("about.json", *(f"{name}.so" for name in SHIPPED))}
ON_LINUX = prebuilt.this_platform() == "linux x86_64"


@pytest.fixture
def tree(tmp_path):
    """A copy of all that a wheel is made of: to build one leaves files beside the sources."""
    copy = tmp_path / "tree"
    for name in ("sparseq", "kernels"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    return copy


def build(tree, what="wheel", **environment):
    """The file that is built as by pip, and what was said."""
    folder = tree.parent / "dist"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    code = f"import setuptools.build_meta as backend; backend.build_{what}({str(folder)!r})"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tree,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert not done.returncode, done.stdout
    [built] = folder.iterdir()
    return built, done.stdout


def unpacked(archive, folder):
    """The folder that a source distribution holds."""
    with tarfile.open(archive) as opened:
        # Python 3.11.4 and later want to be told that nothing unusual is in it.
        opened.extractall(folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    [found] = folder.iterdir()
    archive.unlink()
    return found


def names_in(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def modules():
    """Every file of the two packages."""
    kinds = (".py", ".c", ".h", ".json", ".typed")
    found = [
        path for folder in (ROOT, ROOT / "kernels") for path in folder.glob("sparseq*/**/*") if path.suffix in kinds
    ]
    found = [str(path.relative_to(ROOT)).removeprefix("kernels/") for path in found]
    return {name for name in found if "__pycache__" not in name and not name.startswith(f"{NATIVE}/libraries/")}


def platform_of(wheel):
    return re.fullmatch(r"sparseq-[\d.]+(-0\.editable)?-py3-none-(\w+)\.whl", wheel.name)[2]


# It has no compiler, no home, and no torch but the one that is lent to it.
USE = """
import json, os, sys, torch, sparseq
torch.set_num_threads(2)
before = len(os.listdir("/proc/self/task"))
layer = sparseq.pack(sparseq.convert(torch.nn.Sequential(torch.nn.Linear(512, 512))))
said = {}
for name in sys.argv[1:]:
    sparseq.set_instruction_set(name)
    y = layer(torch.ones(512, 512))
    said[name] = sparseq.backend(details=True)
loaded = {line.split()[-1] for line in open("/proc/self/maps") if "libgomp" in line or "/libraries/" in line}
threads = len(os.listdir("/proc/self/task")) - before
print(json.dumps([sparseq.__file__, said, sorted(map(os.path.basename, loaded)), threads]))
"""


@pytest.mark.skipif(not ON_LINUX, reason="a wheel has native code for Linux on x86-64 alone")
@pytest.mark.slow
def test_it_runs_natively_where_there_is_no_compiler(tree, tmp_path):
    """Built from the source distribution, as `python -m build` does."""
    archive, _ = build(tree, "sdist")
    wheel, _ = build(unpacked(archive, tmp_path / "unpacked"))
    tag = platform_of(wheel)
    assert tag.startswith("manylinux_2_") and tag.endswith("_x86_64")
    names = names_in(wheel)
    assert names >= LIBRARIES | modules()
    assert {name for name in names if name.startswith(f"{NATIVE}/libraries/")} == LIBRARIES
    assert accepted(wheel) == tag

    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", bare], check=True)
    [packages] = bare.glob("lib/python*/site-packages")
    (packages / "torch.pth").write_text("\n".join(path for path in sys.path if path.endswith("-packages")) + "\n")
    install = ["install", "--quiet", "--no-deps", "--no-index", "--disable-pip-version-check", str(wheel)]
    # A path to this checkout would pass for the package.
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([sys.executable, "-m", "pip", "--python", bare / "bin" / "python", *install], check=True, env=clean)
    nowhere = str(tmp_path / "none")
    done = subprocess.run(
        [bare / "bin" / "python", "-W", "error", "-c", USE, *USABLE],
        env={"PATH": "", "HOME": nowhere, "SPARSEQ_CACHE": nowhere, "OMP_NUM_THREADS": "4"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.returncode, done.stderr
    file, said, loaded, threads = json.loads(done.stdout)
    assert Path(file).is_relative_to(bare)
    assert said == {name: f"native ({name}, 2 threads, prebuilt)" for name in USABLE}
    assert len([name for name in loaded if "libgomp" in name]) == 1, loaded
    assert {name for name in loaded if "libgomp" not in name} == {f"{name}.so" for name in USABLE}
    assert threads == 1  # beside the caller, where 4 would have been free to run
    assert not Path(nowhere).exists()

    said = bare_environment.use(bare_environment.install(wheel, tmp_path / "barest"), tmp_path)
    assert "prebuilt" in said and f"torch {metadata.version('torch')}" in said


def accepted(wheel):
    """The platform tag that auditwheel finds."""
    pytest.importorskip("auditwheel")
    shown = subprocess.run(
        [sys.executable, "-m", "auditwheel", "show", wheel], capture_output=True, text=True, check=True
    ).stdout
    return re.search(r'platform tag:\s+"(\w+)"', shown)[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "command,reason",
    [("", "no C compiler was found"), ("{folder}/cc", f"instruction set {SHIPPED[0]}: {{folder}}/cc could not")],
    ids=["none", "too old"],
)
def test_without_a_compiler_for_every_set_it_is_pure_and_says_so(command, reason, tree, tmp_path):
    old = tmp_path / "cc"
    old.write_text('#!/bin/sh\necho "error: unrecognized command-line option" >&2\nexit 1\n')
    old.chmod(0o755)
    wheel, said = build(tree, PATH="", CC=command.format(folder=tmp_path))
    if ON_LINUX:
        start = "the wheel has no native code, which is built on first use instead: "
        assert start + reason.format(folder=tmp_path) in said
    assert platform_of(wheel) == "any"
    assert names_in(wheel) >= modules() and not names_in(wheel) & LIBRARIES


@pytest.mark.slow
def test_a_source_distribution_builds_the_same_wheel(tree, tmp_path):
    def contents(wheel):
        with zipfile.ZipFile(wheel) as archive:
            return {name: archive.read(name) for name in archive.namelist()}

    archive, _ = build(tree, "sdist")
    source = unpacked(archive, tmp_path / "unpacked")
    first, second = (contents(build(folder, PATH="", CC="")[0]) for folder in (tree, source))
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []


@pytest.mark.slow
def test_what_an_earlier_build_left_is_not_in_it(tree):
    native = tree / "build" / "lib" / NATIVE
    (native / "libraries").mkdir(parents=True)
    (native / "libraries" / "about.json").write_text("{}")
    (native / "gone.c").write_text("")
    wheel, _ = build(tree, PATH="", CC="")
    assert not names_in(wheel) & {*LIBRARIES, f"{NATIVE}/gone.c"}


@pytest.mark.slow
def test_an_editable_install_brings_no_native_code(tree):
    """Its C files may change."""
    wheel, said = build(tree, "editable")
    assert platform_of(wheel) == "any" and "no native code" not in said
    assert not list(tree.rglob("*.so")) and not names_in(wheel) & LIBRARIES


@pytest.mark.slow
def test_a_source_distribution_has_all_that_a_wheel_is_made_of(tree):
    archive, _ = build(tree, "sdist")
    with tarfile.open(archive) as opened:
        found = {name.partition("/")[2].removeprefix("kernels/") for name in opened.getnames()}
    assert found >= modules() | {"setup.py", "pyproject.toml", "README.md", "LICENSE"}
    assert {f"{NATIVE}/{path.name}" for path in (*compiler.SOURCES, *compiler.HEADERS)} <= found
