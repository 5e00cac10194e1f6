import functools
import math
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..numerics import lsq_gradient_scale, qmax
from ..reference.fake_quant import sum_to
from .device import current
from .launch import launch, on
from .numerics import MAGNITUDE, clip_and_slope, inverse, level_float

SIGN = tl.constexpr(-(2**31))
# Values of a program of four warps: 16 a thread, four loads of 16 bytes in fp32.
VALUES = 2048
# Programs that share the rows of a column's sum, for each processor.
PROGRAMS = 4


@triton.jit
def tile_scales(scale, rows, columns, R, C, B, BY: tl.constexpr):
    """(scale, 1 / scale), [BLOCK_R, 1] or [1, BLOCK_C]."""
    if BY == "column":
        s = tl.load(scale + columns, mask=columns < C, other=1.0).to(tl.float32)[None, :]
    elif BY == "cycle":
        s = tl.load(scale + rows.to(tl.int32) % B, mask=rows < R, other=1.0).to(tl.float32)[:, None]
    else:
        s = tl.load(scale + rows, mask=rows < R, other=1.0).to(tl.float32)[:, None]
    return s, inverse(s)


@triton.jit(do_not_specialize=["R"])
def fake_quant_kernel(
    x,  # [R, C]
    scale,  # [B], or [C] by column
    out,  # [R, C]
    R,
    C,
    B,
    stride_xr,
    stride_xc,
    QMAX: tl.constexpr,
    BY: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    blocks = tl.cdiv(C, BLOCK_C)
    rows = tl.arange(0, BLOCK_R) + (tl.program_id(0) // blocks).to(tl.int64) * BLOCK_R
    columns = tl.arange(0, BLOCK_C) + (tl.program_id(0) % blocks).to(tl.int64) * BLOCK_C
    inside = (rows[:, None] < R) & (columns[None, :] < C)
    s, factor = tile_scales(scale, rows, columns, R, C, B, BY)
    value = tl.load(x + rows[:, None] * stride_xr + columns[None, :] * stride_xc, mask=inside, other=0.0)
    value = value.to(tl.float32)
    y = level_float(value, factor, QMAX, True) * s
    # The level -0 comes out of an addition as +0. But the result's sign is x's: scale and 1 / scale have the same one.
    magnitude = y.to(tl.int32, bitcast=True) & MAGNITUDE
    y = (magnitude | (value.to(tl.int32, bitcast=True) & SIGN)).to(tl.float32, bitcast=True)
    tl.store(out + rows[:, None] * C + columns[None, :], y.to(out.dtype.element_ty), mask=inside)


@triton.jit
def backward_tile(grad, x, scale, grad_x, rows, columns, R, C, B, QMAX: tl.constexpr, BY: tl.constexpr):
    """Writes a tile of grad_x [R, C]; returns what its values add to the scale's gradient [BLOCK_R, BLOCK_C]. `grad`
    and `x` are the addresses of the tile's values."""
    inside = (rows[:, None] < R) & (columns[None, :] < C)
    _, factor = tile_scales(scale, rows, columns, R, C, B, BY)
    value = tl.load(x, mask=inside, other=0.0)
    g = tl.load(grad, mask=inside, other=0.0).to(tl.float32)
    unclipped, slope = clip_and_slope(value, factor, QMAX)
    # A product and not a choice: an infinite gradient outside the range is NaN, as the reference has it.
    passed = (g * unclipped.to(tl.float32)).to(grad_x.dtype.element_ty)
    tl.store(grad_x + rows[:, None] * C + columns[None, :], passed, mask=inside)
    return tl.where(inside, g * slope, 0.0)


@triton.jit(do_not_specialize=["R"])
def fake_quant_backward_kernel(
    grad,  # [R, C]
    x,  # [R, C]
    scale,  # [B], or [C] by column
    grad_x,  # [R, C]
    sums,  # [R, blocks of columns], or by column [programs, C]
    R,
    C,
    B,
    stride_gr,
    stride_gc,
    stride_xr,
    stride_xc,
    QMAX: tl.constexpr,
    BY: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    blocks = tl.cdiv(C, BLOCK_C)
    first = (tl.program_id(0) // blocks).to(tl.int64)
    column_block = tl.program_id(0) % blocks
    columns = tl.arange(0, BLOCK_C) + column_block.to(tl.int64) * BLOCK_C
    rows = tl.arange(0, BLOCK_R) + first * BLOCK_R
    grad += columns[None, :] * stride_gc
    x += columns[None, :] * stride_xc
    if BY == "column":
        # A program takes each `programs`-th tile of its columns.
        programs = tl.num_programs(0) // blocks
        acc = tl.zeros((BLOCK_R, BLOCK_C), tl.float32)
        for _ in range(first, tl.cdiv(R, BLOCK_R), programs):
            g_at, x_at = grad + rows[:, None] * stride_gr, x + rows[:, None] * stride_xr
            acc += backward_tile(g_at, x_at, scale, grad_x, rows, columns, R, C, B, QMAX, BY)
            rows += programs * BLOCK_R
        tl.store(sums + first * C + columns, tl.sum(acc, axis=0), mask=columns < C)
    else:
        g_at, x_at = grad + rows[:, None] * stride_gr, x + rows[:, None] * stride_xr
        terms = backward_tile(g_at, x_at, scale, grad_x, rows, columns, R, C, B, QMAX, BY)
        tl.store(sums + rows * blocks + column_block, tl.sum(terms, axis=1), mask=rows < R)


class _Plan(NamedTuple):
    """How tensors of one shape are seen as [R, C], so that an element's scale is that of its row ("row": R == B), of
    row % B ("cycle") or of its column ("column": C == B) among B of them, and in what tiles. A scale whose dimensions
    allow none of these is expanded.

    rows, columns: how many tiles there are down and across.
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
def _plan(shape: tuple[int, ...], scale_shape: tuple[int, ...], one_row: bool) -> _Plan:
    """one_row: whether all tensors can be seen as one row without a copy."""
    aligned = (1,) * (len(shape) - len(scale_shape)) + scale_shape
    own = [i for i, n in enumerate(aligned) if n > 1]
    first, end = (own[0], own[-1] + 1) if own else (len(shape[:-1]), len(shape[:-1]))
    outer, B, inner = math.prod(shape[:first]), math.prod(shape[first:end]), math.prod(shape[end:])
    # No such view has a scale that is constant along a dimension between others along which it varies. And the
    # remainder by which a scale is found in a cycle is of 32 bits: one of 64 takes too many registers.
    if aligned[first:end] != shape[first:end] or (min(outer, B, inner) > 1 and outer * B >= 2**31):
        return _plan(shape, shape, one_row)._replace(expanded=True)
    if not own and one_row:
        outer, inner = 1, outer * inner
    by = "column" if own and inner == 1 else "row" if outer == 1 else "cycle"
    R, C = (outer, B) if by == "column" else (outer * B, inner)
    # Few columns, where a scale for each of them is read and inverted; all of a row, where it is the only one.
    block_c = max(VALUES // triton.next_power_of_2(R), 128 if by == "column" else 256)
    block_c = min(block_c, triton.next_power_of_2(C))
    block_r = VALUES // block_c
    return _Plan(R, C, B, by, False, block_r, block_c, triton.cdiv(R, block_r), triton.cdiv(C, block_c))


def _prepared(scale: Tensor, *tensors: Tensor) -> tuple[_Plan, Tensor, list[Any]]:
    """(plan, scales [B], each tensor's view as [R, C] and its two strides, one after another)."""
    shape = tensors[0].shape
    one_row = all(tensor.is_contiguous() or not any(tensor.stride()) for tensor in tensors)
    plan = _plan(shape, scale.shape, one_row)
    views = [x if x.is_contiguous() else x.reshape(plan.R, plan.C) for x in tensors]
    strides = [n for x in views for n in ((plan.C, 1) if x.is_contiguous() else x.stride())]
    return plan, (scale.expand(shape) if plan.expanded else scale).contiguous(), [*views, *strides]


def fake_quant(x: Tensor, scale: Tensor, bits: int) -> Tensor:
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    if out.numel() == 0:
        return out
    plan, scales, (values, *strides) = _prepared(scale, x)
    with on(x):
        launch(
            fake_quant_kernel,
            (plan.rows * plan.columns, 1, 1),
            (values, scales, out, plan.R, plan.C, plan.B, *strides),
            (qmax(bits), plan.by, plan.block_r, plan.block_c),
            warps=4,
            stages=1,
        )
    return out


def fake_quant_backward(grad: Tensor, x: Tensor, scale: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """The gradients of x and of the scale, in one pass. The scale's is summed in an order that never changes."""
    grad_x = torch.empty(x.shape, dtype=grad.dtype, device=x.device)
    if grad_x.numel() == 0:
        return grad_x, torch.zeros_like(scale)
    plan, scales, (grads, values, *strides) = _prepared(scale, grad, x)
    rows, by_column = plan.rows, plan.by == "column"
    if by_column:
        rows = min(rows, -(-PROGRAMS * current().processors // plan.columns))
    shape = (rows, plan.C) if by_column else (plan.R // plan.B, plan.B, plan.columns)
    sums = torch.empty(shape, dtype=torch.float32, device=x.device)
    with on(x):
        launch(
            fake_quant_backward_kernel,
            (rows * plan.columns, 1, 1),
            (grads, values, scales, grad_x, sums, plan.R, plan.C, plan.B, *strides),
            (qmax(bits), plan.by, plan.block_r, plan.block_c),
            warps=4,
            stages=1,
        )
    total = sums.sum(0 if by_column else (0, 2))
    if plan.expanded:
        total = sum_to(total.reshape(x.shape), scale)
    total *= lsq_gradient_scale(x.numel(), scale.numel(), bits)
    return grad_x, total.to(scale.dtype).reshape(scale.shape)
