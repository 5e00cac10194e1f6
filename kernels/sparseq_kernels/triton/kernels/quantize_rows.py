"""Device code of `quantize_rows`, and what other kernels that quantize rows share with it."""

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents

from .numerics import activate, inverse, magnitude_bits, quantized_bits, quantized_float, scale_from_bits


@triton.jit
def row_values(x, mask, columns, inside, ACTIVATION: tl.constexpr, BITS: tl.constexpr = False):
    """Some columns of the rows at `x` and `mask` [BLOCK_M, 1], activated; 0 where masked and where not `inside`.

    An activated value is rounded to x's type, as a tensor of them would be. BITS: the mask comes bit by bit, and eight
    weights that it drops together are not loaded.
    """
    if BITS:
        byte = tl.load(mask + (columns // 8)[None, :], mask=inside, other=0)
        inside &= byte != 0
    loaded = tl.load(x + columns[None, :], mask=inside, other=0.0)
    values = loaded.to(tl.float32)
    if ACTIVATION != "none":
        values = activate(values, ACTIVATION).to(loaded.dtype).to(tl.float32)
    if BITS:
        values = tl.where(((byte.to(tl.int32) >> (columns % 8)[None, :]) & 1) != 0, values, 0.0)
    elif mask is not None:
        values = tl.where(tl.load(mask + columns[None, :], mask=inside, other=0) != 0, values, 0.0)
    return values


@triton.jit
def store_quantized(x_q, values, scale, columns, inside, QMAX: tl.constexpr, CLIP: tl.constexpr = False):
    """Stores `values` [BLOCK_M, BLOCK_K], quantized by their rows' `scale` [BLOCK_M], to the columns of `x_q`.

    A row whose scale is NaN is stored as 0. Where `x_q` is floating it gets the fake-quantized values. CLIP as in
    `quantized_bits`.
    """
    factor = inverse(scale)[:, None]
    if x_q.dtype.element_ty.is_floating():
        found = quantized_float(values, factor, QMAX, CLIP) * scale[:, None]
    else:
        found = tl.where((scale == scale)[:, None], quantized_bits(values, factor, QMAX, CLIP), 0)
    tl.store(x_q + columns[None, :], found.to(x_q.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["M"])
def quantize_rows_kernel(
    x,  # [M, K]
    mask,  # uint8 [M, K], or if BITS [M, ceil(K / 8)], or None
    x_q,  # [M, K], written: int8 or int16, or floating for fake-quantized values, or None
    scales,  # [M], written; if GIVEN [M] or one, read
    M,
    K,
    stride_xm,
    QMAX: tl.constexpr,
    ACTIVATION: tl.constexpr,
    GIVEN: tl.constexpr,
    SCALE_STRIDE: tl.constexpr,  # 1, or 0 if there is one scale in all
    CLIP: tl.constexpr,
    BITS: tl.constexpr,
    WHOLE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr,
    SIGNAL: tl.constexpr,  # whether the next kernel may begin now, if it is launched as dependent
):
    if SIGNAL:
        gdc_launch_dependents()
    rows = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tl.arange(0, BLOCK_K)
    in_rows = rows[:, None] < M
    x += rows[:, None] * stride_xm
    if mask is not None:
        mask += rows[:, None] * (tl.cdiv(K, 8) if BITS else K)
    # A loop that the compiler sees to run once is none.
    end = BLOCK_K if WHOLE else K
    values = tl.zeros((BLOCK_M, BLOCK_K), tl.float32)
    if GIVEN:
        scale = tl.load(scales + rows * SCALE_STRIDE, mask=rows < M, other=1.0)
    else:
        largest = tl.zeros((BLOCK_M,), tl.int32)
        for start in range(0, end, BLOCK_K):
            inside = in_rows & (columns[None, :] < K - start)
            values = row_values(x, mask, start + columns, inside, ACTIVATION, BITS)
            largest = tl.maximum(largest, tl.max(magnitude_bits(values), axis=1))
        scale = scale_from_bits(largest, QMAX)
        tl.store(scales + rows, scale, mask=rows < M)
    if x_q is not None:
        x_q += rows[:, None] * K
        for start in range(0, end, BLOCK_K):
            inside = in_rows & (columns[None, :] < K - start)
            if GIVEN or not WHOLE:
                values = row_values(x, mask, start + columns, inside, ACTIVATION, BITS)
            store_quantized(x_q, values, scale, start + columns, inside, QMAX, CLIP)
