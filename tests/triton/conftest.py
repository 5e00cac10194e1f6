"""Kernels under test: outputs poisoned before every launch, and a clear word where nothing can run them."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

from gpu_or_interpreter import REASON

from sparseq_kernels import use_backend


@pytest.fixture(autouse=True)
def _poisoned_outputs() -> Iterator[None]:
    """Fills what torch.empty returns with NaN and the largest integers, so that an element nobody wrote is seen."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def on_triton() -> Iterator[None]:
    torch.manual_seed(0)
    with use_backend("triton"):
        yield


def pytest_configure(config: pytest.Config) -> None:
    # numpy's, of the interpreter, for what overflows to infinity as it should.
    config.addinivalue_line("filterwarnings", "ignore:overflow encountered:RuntimeWarning")
    config.addinivalue_line("filterwarnings", "ignore:invalid value encountered:RuntimeWarning")
    config.addinivalue_line("filterwarnings", "ignore:divide by zero encountered:RuntimeWarning")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if REASON is None:
        return
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.skip(reason=f"Triton's kernels: {REASON}"))
