"""Where this folder's tests run: on a GPU, or with TRITON_INTERPRET=1 on the CPU, in Triton's interpreter."""

from typing import Any

import torch

from sparseq_kernels import use_backend
from sparseq_kernels.backends import why_not

DEVICE = "cuda" if torch.cuda.is_available() and why_not("triton", "cpu") is not None else "cpu"
REASON = why_not("triton", DEVICE)
FLOATS = [torch.float32, torch.float16, torch.bfloat16]
# The interpreter cuts a bf16 off where a GPU rounds it: one unit in the last place, not half of one.
TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE, dtype)


def integers(*shape: int, seed: int = 0) -> torch.Tensor:
    """int8 in [-127, 127]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-127, 128, shape, dtype=torch.int8, generator=generator).to(DEVICE)


def both(op: str, *args: Any) -> tuple[Any, Any]:
    """(the reference's result, Triton's) of torch.ops.sparseq.<op>."""
    results = []
    for backend in ("reference", "triton"):
        with use_backend(backend):
            results.append(getattr(torch.ops.sparseq, op)(*args))
    return results[0], results[1]


def same(found: torch.Tensor, expected: torch.Tensor) -> bool:
    """Equal to the bit, NaN at the same places."""
    if found.dtype != expected.dtype or found.shape != expected.shape:
        return False
    if not found.is_floating_point():
        return torch.equal(found, expected)
    return torch.equal(found.isnan(), expected.isnan()) and torch.equal(found.nan_to_num(), expected.nan_to_num())
