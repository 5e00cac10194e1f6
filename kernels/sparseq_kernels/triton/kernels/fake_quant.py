"""Device code of `fake_quant` and its backward."""

import triton
import triton.language as tl

from .numerics import MAGNITUDE, clip_and_slope, inverse, quantized_float

SIGN = tl.constexpr(-(2**31))


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
    y = quantized_float(value, factor, QMAX, True) * s
    # Rounding by an addition turns -0 into +0. The result's sign is x's, since scale and 1 / scale have the same one.
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
