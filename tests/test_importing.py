"""Importing the library costs no more than it must, and works in every order."""

import subprocess
import sys

import pytest


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_importing_brings_in_no_training_library(fresh):
    modules = "sparseq_kernels", "sparseq.nn", "sparseq", "sparseq.models", "sparseq.cli"
    heavy = "{'transformers', 'datasets', 'triton', 'sklearn', 'scipy', 'matplotlib'}"
    done = fresh.run(
        "import sys\n" + "\n".join(f"import {m}; print('{m}', *{heavy} & set(sys.modules))" for m in modules)
    )
    assert done.stdout.split() == list(modules), done.stdout + done.stderr


@pytest.mark.parametrize(
    "argv",
    [["--help"], ["--version"], ["nonsense"], [], ["compress", "--help"], ["compress", "--model", "tiny"],
     ["compress", "--learning-rate", "1"], ["compress", "--recipe", "missing.yaml"], ["size", "--help"]],
    ids=" ".join,
)  # fmt: skip
def test_help_and_wrong_commands_do_without_torch(argv):
    code = f"""
import sys
sys.modules.update(torch=None, numpy=None, transformers=None, datasets=None, rich=None)
from sparseq.cli import main
sys.exit(main({argv!r}))
"""
    done = run(code)
    assert done.returncode == (0 if {"--help", "--version"} & set(argv) else 2), done.stderr
    assert "torch" not in done.stderr


NEED_TORCH = "formats", "dtypes", "cache", "block_index", "reference.int8_linear", "ops.int8_linear"


@pytest.mark.parametrize(
    "first",
    ["sparseq_kernels.errors", "sparseq_kernels.formats",
     *(pytest.param(name, marks=pytest.mark.slow) for name in ("sparseq", "sparseq_kernels")),
     *(pytest.param(f"sparseq_kernels.{name}", marks=pytest.mark.slow) for name in NEED_TORCH[1:])],
)  # fmt: skip
def test_the_ops_are_there_with_torch_whichever_is_imported_first(first):
    """And without another import after it."""
    code = f"""
import sys, {first}
before = "torch" in sys.modules
import torch
print(before, torch.ops.sparseq.magnitude_mask, hasattr(torch.ops.sparseq, "int8_linear"))
print([finder for finder in sys.meta_path if getattr(finder, "module", "").startswith("sparseq_kernels.")])
import sparseq, sparseq.nn
print(sparseq.nn.convert is sparseq.convert, "convert" in dir(sparseq))
"""
    done = run(code)
    needs = first.removeprefix("sparseq_kernels.") in NEED_TORCH
    assert done.stdout.split() == [str(needs), "sparseq.magnitude_mask", "True", "[]", "True", "True"], done


def test_what_the_packages_offer_can_be_imported(fresh):
    code = """
import sparseq, sparseq_kernels
for package in (sparseq, sparseq_kernels):
    for name in package.__all__:
        getattr(package, name)
        exec(f"from {package.__name__} import {name}")
    try:
        package.nothing
    except AttributeError as error:
        print(error)
"""
    done = fresh.run(code)
    assert done.stdout.count("has no attribute 'nothing'") == 2, done


def test_python_m_is_the_command():
    for module in ("sparseq", "sparseq.cli"):
        done = subprocess.run([sys.executable, "-m", module, "--version"], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout.split()[0]) == (0, "sparseq"), done


def test_works_where_triton_and_the_training_libraries_are_absent_or_broken(fresh):
    code = """
import sys
for name in ("triton", "transformers", "datasets", "rich", "sklearn", "scipy", "matplotlib", "accelerate"):
    sys.modules[name] = None  # importing it raises ImportError
import torch, sparseq
from torch import nn
model = sparseq.convert(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 2)), sparsity=0.5)
model(torch.randn(3, 8)).sum().backward()
packed = sparseq.pack(model)
import tempfile
with tempfile.TemporaryDirectory() as folder:
    sparseq.save(packed, folder)
    again = sparseq.load(folder, nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 2)))
x = torch.randn(3, 8)
print(torch.equal(again(x), packed(x)), "total" in str(sparseq.size_report(packed)).lower())
"""
    done = fresh.run(code)
    assert done.stdout.strip() == "True True", done.stdout + done.stderr
