"""CONTRIBUTING.md followed literally: its files are written into a copy of the repository, and what it says is run."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pages import ROOT, example_files

from bench.kernels import peers

PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
OP = "relu_quantize_rows"
TOPS = ("kernels", "sparseq", "bench", "tools", "tests", "pyproject.toml", "Makefile")
Run = Callable[..., str]


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository with the files of CONTRIBUTING.md."""
    folder = tmp_path_factory.mktemp("copied")
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc", "results", "*_cache")
    for top in TOPS:
        if (ROOT / top).is_dir():
            shutil.copytree(ROOT / top, folder / top, ignore=ignored)
        else:
            shutil.copy(ROOT / top, folder / top)
    for kind, name, code in example_files():
        path = folder / name
        assert path.parent.is_dir() and path.exists() == (kind == "append"), name
        path.write_text((path.read_text(encoding="utf-8") if kind == "append" else "") + code, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def run(copied: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs Python with these arguments in the copy; its output. It must succeed."""
    cache = tmp_path_factory.getbasetemp() / "cache"

    def found(*arguments: str, **environment: str) -> str:
        own = {"PYTHONPATH": f"{copied}:{copied / 'kernels'}", "SPARSEQ_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, *arguments], cwd=copied, env=os.environ | own | environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return found


def test_an_op_is_at_most_six_files() -> None:
    named = re.findall(r"^\| \d \| (.*?) \|", PAGE, re.MULTILINE)
    rows = [re.findall(r"`(\S+)`", cell) for cell in named]
    patterns = {pattern.replace("OP", OP) for row in rows for pattern in row}
    files = [path for kind, path, _ in example_files() if OP in path]
    assert len(rows) == 6 and set(files) == patterns
    # One of the two in the third row, and what is shown is both.
    assert len(files) - len(next(row for row in rows if len(row) > 1)) + 1 == 6
    assert [path for kind, path, _ in example_files() if kind == "append"] == [
        "kernels/sparseq_kernels/formats/__init__.py"
    ]


def passed(said: str) -> int:
    """The number of tests that passed, as pytest says it."""
    found = re.search(r"(\d+) passed", said)
    return int(found[1]) if found else 0


PYTEST = ("-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider")


def test_the_op_passes_its_tests_and_torchs_check_of_ops(run: Run) -> None:
    tests = (f"tests/kernels/test_{OP}.py", "tests/kernels/test_ops.py")
    assert passed(run(*PYTEST, *tests, "-k", f"{OP} and (native or not opcheck) and not bf16")) > 20


@pytest.mark.slow
@pytest.mark.slow
def test_the_op_passes_the_tests_of_every_op(run: Run) -> None:
    assert passed(run(*PYTEST, "tests/kernels", "-k", OP)) > 70


def test_its_kernel_passes_its_tests_in_the_interpreter(run: Run) -> None:
    tests = f"tests/kernels/test_{OP}.py"
    assert passed(run(*PYTEST, tests, "-k", "triton and (nan or shape1)", TRITON_INTERPRET="1")) == 4


def test_it_is_benchmarked(run: Run) -> None:
    said = run("-m", "bench", "run", OP, "--shape", "4x64", "--peers", "--smallest")
    assert "sparseq" in said and peers.OP_BY_OP in said


def test_the_format_is_chosen_saved_and_loaded(run: Run) -> None:
    code = """
import torch, sparseq
from torch import nn
layer = sparseq.nn.QuantSparseLinear(64, 32)
mask = torch.zeros(32, 64, dtype=torch.bool)
mask[::4] = True
layer.set_mask(mask)
packed = sparseq.pack(nn.Sequential(layer))
sparseq.save(packed, "row_sparse")
loaded = sparseq.load("row_sparse", nn.Sequential(nn.Linear(64, 32)))
x = torch.randn(3, 64)
assert torch.equal(loaded(x), packed(x))
print(loaded[0].format)
"""
    assert run("-c", code).split() == ["row_sparse"]


def test_the_files_are_in_the_style_of_the_others(copied: Path) -> None:
    files = [str(copied / path) for kind, path, _ in example_files() if kind == "file"]
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, *files], cwd=copied, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout


@pytest.mark.slow
@pytest.mark.slow
def test_its_kernel_is_compiled_for_an_absent_gpu(run: Run) -> None:
    kernel = f"{OP}_kernel"
    said = run("-m", "tools.compile_check", "--arch", "sm_90", "--kernel", kernel, "--out", "compiled")
    assert kernel in said
