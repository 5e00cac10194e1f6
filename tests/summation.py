"""Floating-point products whose terms are added in another order, which depends on where the operands lie.

BLAS and oneDNN choose a kernel by processor, alignment, shape and strides, and kernels add in different orders. With
`SPARSEQ_TEST_SUMMATION=<number>` the tests run as on a processor where that choice shows: the order of a product's
terms is drawn from the number, the shapes, the strides, and the operands' addresses modulo a cache line. The same
product of the same tensors stays the same, and sums of integers stay exact; a test that fails demands equality to the
bit of what is not the same product.
"""

import functools
import os
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

CACHE_LINE = 64
SWITCH = "SPARSEQ_TEST_SUMMATION"

aten = torch.ops.aten
# What keeps the replaced kernels: a library's registrations end with it.
_installed: list[torch.library.Library] = []


@functools.lru_cache(maxsize=4096)
def _order(key: tuple[Any, ...], depth: int) -> Tensor:
    seed = hash((int(os.environ.get(SWITCH, "0")), key)) & 0x7FFFFFFF  # of numbers alone: every process's is the same
    return torch.randperm(depth, generator=torch.Generator().manual_seed(seed), device="cpu")


def _reordered(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """The operands [..., M, K] and [..., K, N] or [K] with K in another order; integers in fp32 sum up all the same."""
    where = tuple(part for t in (a, b) for part in (t.data_ptr() % CACHE_LINE, tuple(t.shape), t.stride()))
    order = _order(where, a.shape[-1])
    return a.index_select(-1, order), b.index_select(0 if b.dim() == 1 else -2, order)


def _product(out_variant: Any, operands: int) -> Callable[..., Tensor]:
    """A kernel with `operands` tensors, of which the last two are multiplied; `out_variant` is torch's own kernel."""

    def kernel(*tensors: Tensor, **scalars: Any) -> Tensor:
        first, (a, b) = tensors[: operands - 2], tensors[operands - 2 : operands]
        rest = tensors[operands:]  # beta and alpha may be positional
        y = a.new_empty(0)
        if a.is_floating_point() and a.shape[-1] > 1:
            a, b = _reordered(a, b)
        result: Tensor = out_variant(*first, a, b, *rest, **scalars, out=y)
        return result

    return kernel


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return aten.mv.default(a.unsqueeze(0), b).squeeze(0)  # torch's `dot.out` calls `dot`


def install() -> None:
    """Replaces torch's CPU kernels for matrix products in this process, for good."""
    if _installed:
        return
    library = torch.library.Library("aten", "IMPL")
    warnings.filterwarnings("ignore", message="Warning only once for all operators")
    for name, operands in (("mm", 2), ("bmm", 2), ("mv", 2), ("addmm", 3), ("baddbmm", 3), ("addmv", 3)):
        library.impl(name, _product(getattr(aten, name).out, operands), "CPU", allow_override=True)
    library.impl("dot", _dot, "CPU", allow_override=True)
    _installed.append(library)
