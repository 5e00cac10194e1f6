"""Tensors are made with a dtype and a device that are said. Otherwise both are torch's defaults, which a user may
change (`torch.set_default_dtype`, `torch.device` as a context), and code that takes a tensor's address reads and writes
beyond its end, or at no address at all."""

import ast
from pathlib import Path

import pytest
import torch
from torch.utils._device import _device_constructors

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "kernels").rglob("*.py"))
# Those that `torch.device` as a context changes, by torch's own account, and the classes that make a tensor.
FACTORIES = {function.__name__.removeprefix("fft_") for function in _device_constructors()} | {
    f"{prefix}Tensor" for prefix in ("", "Float", "Double", "Half", "BFloat16", "Byte", "Char", "Short", "Int", "Long")
}


def bare_factories(source: str) -> list[str]:
    """What in `source` makes a tensor without saying its dtype and device, a line each."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "torch":
            imported = sorted(FACTORIES & {alias.name for alias in node.names} - {"Tensor"})
            found += [f"{node.lineno}: {name} is imported by its own name" for name in imported]
        if not isinstance(node, ast.Call):
            continue
        whole = ast.unparse(node.func)
        name = whole.rpartition(".")[2]
        made_by_torch = whole == "Tensor" or (whole.startswith("torch.") and name in FACTORIES)
        missing = {"dtype", "device"} - {keyword.arg for keyword in node.keywords}
        if made_by_torch and missing:
            found.append(f"{node.lineno}: {whole} without {' and '.join(sorted(missing))}")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_kernels_say_dtype_and_device_of_every_tensor_that_they_make(path):
    assert bare_factories(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "line,missing",
    [
        ("torch.empty(3)", "device and dtype"),
        ("torch.zeros(3, dtype=d)", "device"),
        ("torch.tensor([1], device=x.device)", "dtype"),
        ("torch.randn(3, **settings)", "device and dtype"),
        ("torch.arange(3, dtype=d)", "device"),
        ("torch.fft.fftfreq(3)", "device and dtype"),
        ("Tensor(3, 4)", "device and dtype"),
        ("torch.FloatTensor(3)", "device and dtype"),
    ],
)
def test_the_lint_sees(line, missing):
    [found] = bare_factories(line)
    assert found.endswith(f"without {missing}")


def test_the_lint_sees_what_is_imported_by_its_own_name():
    assert bare_factories("from torch import empty, nn, Tensor") == ["1: empty is imported by its own name"]


@pytest.mark.parametrize(
    "line", ["torch.empty(3, dtype=d, device=v)", "x.new_zeros(3)", "torch.zeros_like(x)", "tl.zeros((3,), tl.float32)"]
)
def test_the_lint_passes(line):
    assert bare_factories(line) == []


def test_torch_names_its_factories():
    assert {"empty", "zeros", "ones", "full", "arange", "tensor", "randn", "rand", "randint"} <= FACTORIES
    assert all(hasattr(torch, name) for name in ("empty", "asarray"))
