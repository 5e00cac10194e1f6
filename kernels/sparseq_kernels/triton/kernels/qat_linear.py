"""Device code of `qat_linear`'s backward: dX = G fq(W) and dW = G^T fq(X), for G [M, N] the gradient of y.

Both are out [R, C] = G' [R, D] fq(b) [D, C], where b is floating and each of its rows has a scale. The values of a row
of b and of out lie side by side. b is fake-quantized before, or between its load and the product.
"""

import triton
import triton.language as tl

from ..runtime.availability import interpreted
from .numerics import clip_and_slope, inverse, quantized_float
from .tiles import place, tile_place

INTERPRETED = tl.constexpr(interpreted())


@triton.jit
def product(a, b, acc, PRECISION: tl.constexpr):
    """acc + a @ b, in fp32."""
    if INTERPRETED:
        # It would multiply bf16 values' bits as integers.
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, acc, input_precision=PRECISION)


@triton.jit
def finish(
    acc,
    out,
    out_mask,
    clipped,
    clipped_scale,
    slopes,
    rows,
    columns,
    part,
    parts,
    R,
    C,
    stride_clipped,
    CLIPPED_QMAX: tl.constexpr,
    REGROW: tl.constexpr,
):
    """Stores a tile `acc` of the gradient of `clipped` [R, C], with zeros where masked unless REGROW.

    Where `clipped` is not None its scale is learned: the gradient is zero outside the clip range, and slopes[:, part]
    is the tile's share of each row's sum of gradient * LSQ slope.
    """
    inside = (rows[:, None] < R) & (columns[None, :] < C)
    at = rows.to(tl.int64)[:, None] * C + columns[None, :]
    if out_mask is not None:
        kept = tl.load(out_mask + at, mask=inside, other=0) != 0
    if clipped is not None:
        value = tl.load(clipped + rows.to(tl.int64)[:, None] * stride_clipped + columns[None, :], mask=inside, other=0)
        if out_mask is not None:
            value = tl.where(kept, value, 0.0)
        factor = inverse(tl.load(clipped_scale + rows, mask=rows < R, other=1.0))
        within, slope = clip_and_slope(value, factor[:, None], CLIPPED_QMAX)
        share = tl.sum(tl.where(inside, acc * slope, 0.0), axis=1)
        tl.store(slopes + rows.to(tl.int64) * parts + part, share, mask=rows < R)
        # A product, for a gradient of NaN or Inf is not lost outside the range either.
        acc = acc * within.to(tl.float32)
    if out_mask is not None and not REGROW:
        acc = tl.where(kept, acc, 0.0)
    tl.store(out + at, acc.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["R", "D"])
def gradient_kernel(
    g,  # [R, D], or [D, R] if TRANSPOSED: one dtype with the product
    b,  # [D, C] floating
    b_mask,  # [D, C] uint8, or None
    scale,  # [D]
    factor,  # [D]: 1 / scale
    out,  # [R, C]; if SPLIT > 1 the sums, fp32 [SPLIT, R, C]
    out_mask,  # [R, C] uint8, or None
    clipped,  # [R, C] floating, or None
    clipped_scale,  # [R]
    slopes,  # [R, column tiles]
    R,
    C,
    D,
    stride_g,
    stride_b,
    stride_clipped,
    TRANSPOSED: tl.constexpr,
    QMAX: tl.constexpr,  # 0 if b is fake-quantized already
    CLIP: tl.constexpr,
    CLIPPED_QMAX: tl.constexpr,
    REGROW: tl.constexpr,
    PRECISION: tl.constexpr,
    EVEN_D: tl.constexpr,
    RUN_R: tl.constexpr,  # as RUN of `place`
    RUN_C: tl.constexpr,
    SPLIT: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_D: tl.constexpr,
    GROUP_R: tl.constexpr,
    PARTS: tl.constexpr,
):
    tiles_c = tl.cdiv(C, BLOCK_C)
    tile_r, tile_c = tile_place(tl.program_id(0), tl.cdiv(R, BLOCK_R), tiles_c, GROUP_R)
    rows, g_rows = place(tile_r, R, BLOCK_R, RUN_R)
    columns, b_columns = place(tile_c, C, BLOCK_C, RUN_C)
    depth = tl.arange(0, BLOCK_D)
    share = tl.cdiv(tl.cdiv(D, BLOCK_D), SPLIT) * BLOCK_D
    first = tl.program_id(1) * share
    step = tl.full((), BLOCK_D, tl.int64)
    if TRANSPOSED:
        g_at = g + (first + depth).to(tl.int64)[:, None] * stride_g + g_rows[None, :]
        g_step = step * stride_g
    else:
        g_at = g + g_rows.to(tl.int64)[:, None] * stride_g + (first + depth)[None, :]
        g_step = step
    b_at = b + (first + depth).to(tl.int64)[:, None] * stride_b + b_columns[None, :]
    if b_mask is not None:
        mask_at = b_mask + (first + depth).to(tl.int64)[:, None] * C + b_columns[None, :]
    acc = tl.zeros((BLOCK_R, BLOCK_C), tl.float32)
    for k in range(first, tl.minimum(D, first + share), BLOCK_D):
        if EVEN_D:
            g_tile = tl.load(g_at)
            b_tile = tl.load(b_at)
        else:
            left = depth < D - k
            g_tile = tl.load(g_at, mask=left[:, None] if TRANSPOSED else left[None, :], other=0.0)
            b_tile = tl.load(b_at, mask=left[:, None], other=0.0)
        if b_mask is not None:
            kept = tl.load(mask_at) if EVEN_D else tl.load(mask_at, mask=left[:, None], other=0)
            b_tile = tl.where(kept != 0, b_tile, 0.0)
            mask_at += step * C
        if QMAX > 0:
            s = tl.load(scale + k + depth, mask=depth < D - k, other=0.0)
            f = tl.load(factor + k + depth, mask=depth < D - k, other=0.0)
            b_tile = (quantized_float(b_tile, f[:, None], QMAX, CLIP) * s[:, None]).to(g_tile.dtype)
        acc = product(tl.trans(g_tile) if TRANSPOSED else g_tile, b_tile, acc, PRECISION)
        g_at += g_step
        b_at += step * stride_b
    # Where programs share the depth, out_mask and clipped are None: each stores its sums, no more.
    out += tl.program_id(1).to(tl.int64) * R * C
    if PARTS == 2:
        HALF: tl.constexpr = BLOCK_C // 2
        left_half, right_half = tl.split(tl.permute(tl.reshape(acc, (BLOCK_R, 2, HALF)), (0, 2, 1)))
        half = tile_c * BLOCK_C + tl.arange(0, HALF)
        finish(
            left_half, out, out_mask, clipped, clipped_scale, slopes, rows, half, tile_c * 2, tiles_c * 2, R, C,
            stride_clipped, CLIPPED_QMAX, REGROW,
        )  # fmt: skip
        finish(
            right_half, out, out_mask, clipped, clipped_scale, slopes, rows, half + HALF, tile_c * 2 + 1, tiles_c * 2,
            R, C, stride_clipped, CLIPPED_QMAX, REGROW,
        )  # fmt: skip
    else:
        finish(
            acc, out, out_mask, clipped, clipped_scale, slopes, rows, columns, tile_c, tiles_c, R, C, stride_clipped,
            CLIPPED_QMAX, REGROW,
        )  # fmt: skip


@triton.jit(do_not_specialize=["R"])
def gradient_sum_kernel(
    sums,  # fp32 [SPLIT, R, C]
    out,  # [R, C]
    out_mask,  # [R, C] uint8, or None
    clipped,  # [R, C] floating, or None
    clipped_scale,  # [R]
    slopes,  # [R, column tiles]
    R,
    C,
    size,  # R * C
    stride_clipped,
    CLIPPED_QMAX: tl.constexpr,
    REGROW: tl.constexpr,
    SPLIT: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """The epilogue of `gradient_kernel` where programs share the depth: adds up in their order and stores."""
    rows = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    columns = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = (rows[:, None] < R) & (columns[None, :] < C)
    at = sums + rows.to(tl.int64)[:, None] * C + columns[None, :]
    acc = tl.load(at, mask=inside, other=0.0)
    for _ in range(1, SPLIT):
        at += size
        acc += tl.load(at, mask=inside, other=0.0)
    finish(
        acc, out, out_mask, clipped, clipped_scale, slopes, rows, columns, tl.program_id(1), tl.num_programs(1), R, C,
        stride_clipped, CLIPPED_QMAX, REGROW,
    )  # fmt: skip
