"""Host code of `fake_quant` and its backward."""

import functools
import math
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from ..numerics import as_rows, lsq_gradient_scale, qmax
from ..reference import fake_quant as reference
from ..registry import implementation
from .kernels.fake_quant import fake_quant_backward_kernel, fake_quant_kernel
from .operands import contiguous_rows
from .quantize_rows import row_scales
from .runtime.device import current
from .runtime.launch import launch, on

# Values of a program of four warps: 16 a thread, four loads of 16 bytes in fp32.
VALUES = 2048
# Programs that share the rows of a column's sum, for each processor.
PROGRAMS = 4


class _Tiling(NamedTuple):
    """How tensors of one shape are seen as a matrix [R, C] with B scales, and in what tiles.

    by: which scale an element has: that of its row ("row", R == B), of row % B ("cycle"), or of its column ("column",
    C == B). expanded: whether the scale's dimensions allow none of these, so that it is expanded. rows, columns: how
    many tiles there are down and across.
    """

    R: int
    C: int
    B: int
    by: str
    expanded: bool
    block_r: int
    block_c: int
    rows: int
    columns: int


@functools.lru_cache(maxsize=4096)
def _tiling(shape: tuple[int, ...], scale_shape: tuple[int, ...], one_row: bool) -> _Tiling:
    """one_row: whether all tensors can be seen as one row without a copy."""
    aligned = (1,) * (len(shape) - len(scale_shape)) + scale_shape
    own = [i for i, n in enumerate(aligned) if n > 1]
    first, end = (own[0], own[-1] + 1) if own else (len(shape[:-1]), len(shape[:-1]))
    outer, B, inner = math.prod(shape[:first]), math.prod(shape[first:end]), math.prod(shape[end:])
    # No such view has a scale that is constant along a dimension between others along which it varies. And the
    # remainder by which a scale is found in a cycle is of 32 bits: one of 64 takes too many registers.
    if aligned[first:end] != shape[first:end] or (min(outer, B, inner) > 1 and outer * B >= 2**31):
        return _tiling(shape, shape, one_row)._replace(expanded=True)
    if not own and one_row:
        outer, inner = 1, outer * inner
    by = "column" if own and inner == 1 else "row" if outer == 1 else "cycle"
    R, C = (outer, B) if by == "column" else (outer * B, inner)
    # Few columns, where a scale for each of them is read and inverted; all of a row, where it is the only one.
    block_c = max(VALUES // triton.next_power_of_2(R), 128 if by == "column" else 256)
    block_c = min(block_c, triton.next_power_of_2(C))
    block_r = VALUES // block_c
    return _Tiling(R, C, B, by, False, block_r, block_c, triton.cdiv(R, block_r), triton.cdiv(C, block_c))


def _prepared(scale: Tensor, *tensors: Tensor) -> tuple[_Tiling, Tensor, list[Any]]:
    """(tiling, scales [B], each tensor's view as [R, C] and its two strides, one after another)."""
    shape = tensors[0].shape
    one_row = all(tensor.is_contiguous() or not any(tensor.stride()) for tensor in tensors)
    tiling = _tiling(shape, scale.shape, one_row)
    views = [x if x.is_contiguous() else x.reshape(tiling.R, tiling.C) for x in tensors]
    strides = [n for x in views for n in ((tiling.C, 1) if x.is_contiguous() else x.stride())]
    return tiling, (scale.expand(shape) if tiling.expanded else scale).contiguous(), [*views, *strides]


@implementation("fake_quant", "triton")
def fake_quant(x: Tensor, scale: Tensor | None, bits: int) -> Tensor:
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    if out.numel() == 0:
        return out
    if scale is None:
        scale = row_scales(contiguous_rows(as_rows(x)), bits).reshape(*x.shape[:-1], 1)
    tiling, scales, (values, *strides) = _prepared(scale, x)
    with on(x):
        launch(
            fake_quant_kernel,
            (tiling.rows * tiling.columns, 1, 1),
            (values, scales, out, tiling.R, tiling.C, tiling.B, *strides),
            (qmax(bits), tiling.by, tiling.block_r, tiling.block_c),
            num_warps=4,
            num_stages=1,
        )
    return out


@implementation("fake_quant_backward", "triton")
def fake_quant_backward(grad: Tensor, x: Tensor | None, scale: Tensor | None, bits: int) -> tuple[Tensor, Tensor]:
    """The gradients of x and of the scale, in one pass. The scale's is summed in an order that never changes."""
    if x is None or scale is None:
        return reference.fake_quant_backward(grad, x, scale, bits)
    grad_x = torch.empty(x.shape, dtype=grad.dtype, device=x.device)
    if grad_x.numel() == 0:
        return grad_x, torch.zeros_like(scale)
    tiling, scales, (grads, values, *strides) = _prepared(scale, grad, x)
    rows, by_column = tiling.rows, tiling.by == "column"
    if by_column:
        rows = min(rows, -(-PROGRAMS * current().processors // tiling.columns))
    shape = (rows, tiling.C) if by_column else (tiling.R // tiling.B, tiling.B, tiling.columns)
    sums = torch.empty(shape, dtype=torch.float32, device=x.device)
    with on(x):
        launch(
            fake_quant_backward_kernel,
            (rows * tiling.columns, 1, 1),
            (grads, values, scales, grad_x, sums, tiling.R, tiling.C, tiling.B, *strides),
            (qmax(bits), tiling.by, tiling.block_r, tiling.block_c),
            num_warps=4,
            num_stages=1,
        )
    total = sums.sum(0 if by_column else (0, 2))
    if tiling.expanded:
        total = reference.sum_to(total.reshape(x.shape), scale)
    total *= lsq_gradient_scale(x.numel(), scale.numel(), bits)
    return grad_x, total.to(scale.dtype).reshape(scale.shape)
