"""Device code of `layer_norm_quantize_rows`."""

import triton
import triton.language as tl

from .numerics import magnitude_bits, scale_from_bits
from .quantize_rows import store_quantized


@triton.jit
def row_sums(x, residual, columns, inside):
    """x + residual in fp32 for some columns of the rows at `x` and `residual` [BLOCK_M, 1]; 0 where not `inside`."""
    total = tl.load(x + columns[None, :], mask=inside, other=0.0).to(tl.float32)
    if residual is not None:
        total += tl.load(residual + columns[None, :], mask=inside, other=0.0).to(tl.float32)
    return total


@triton.jit
def normalized(total, mean, factor, weight, bias, columns, K):
    """(total - mean) * factor * weight + bias; 0 beyond column K."""
    w = tl.load(weight + columns, mask=columns < K, other=0.0).to(tl.float32)
    b = tl.load(bias + columns, mask=columns < K, other=0.0).to(tl.float32)
    return (total - mean[:, None]) * factor[:, None] * w[None, :] + b[None, :]


@triton.jit(do_not_specialize=["M"])
def layer_norm_quantize_rows_kernel(
    x,  # [M, K]
    residual,  # [M, K], or None
    weight,  # [K]
    bias,  # [K]
    y,  # [M, K]
    y_q,  # [M, K] int8 or int16
    scales,  # [M]
    eps,
    M,
    K,
    stride_xm,
    stride_rm,
    QMAX: tl.constexpr,
    WHOLE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    rows = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tl.arange(0, BLOCK_K)
    in_rows = rows[:, None] < M
    x += rows[:, None] * stride_xm
    if residual is not None:
        residual += rows[:, None] * stride_rm
    y += rows[:, None] * K
    y_q += rows[:, None] * K
    # A loop that the compiler sees to run once is none.
    end = BLOCK_K if WHOLE else K

    values = tl.zeros((BLOCK_M, BLOCK_K), tl.float32)
    sums = tl.zeros((BLOCK_M, BLOCK_K), tl.float32)
    for start in range(0, end, BLOCK_K):
        values = row_sums(x, residual, start + columns, in_rows & (columns[None, :] < K - start))
        sums += values
    mean = tl.div_rn(tl.sum(sums, axis=1), K * 1.0)

    squares = tl.zeros((BLOCK_M, BLOCK_K), tl.float32)
    for start in range(0, end, BLOCK_K):
        inside = in_rows & (columns[None, :] < K - start)
        if not WHOLE:
            values = row_sums(x, residual, start + columns, inside)
        off = tl.where(inside, values - mean[:, None], 0.0)
        squares += off * off
    variance = tl.div_rn(tl.sum(squares, axis=1), K * 1.0)
    factor = tl.div_rn(1.0, tl.sqrt_rn(variance + eps))

    largest = tl.zeros((BLOCK_M,), tl.int32)
    for start in range(0, end, BLOCK_K):
        inside = in_rows & (columns[None, :] < K - start)
        if not WHOLE:
            values = row_sums(x, residual, start + columns, inside)
        rounded = normalized(values, mean, factor, weight, bias, start + columns, K).to(y.dtype.element_ty)
        tl.store(y + start + columns[None, :], rounded, mask=inside)
        values = rounded.to(tl.float32)
        largest = tl.maximum(largest, tl.max(magnitude_bits(values), axis=1))
    scale = scale_from_bits(largest, QMAX)
    tl.store(scales + rows, scale, mask=rows < M)

    for start in range(0, end, BLOCK_K):
        inside = in_rows & (columns[None, :] < K - start)
        if not WHOLE:
            # Computed again, and not read from y: another thread of the program may have written it.
            values = row_sums(x, residual, start + columns, inside)
            values = normalized(values, mean, factor, weight, bias, start + columns, K)
            values = values.to(y.dtype.element_ty).to(tl.float32)
        store_quantized(y_q, values, scale, start + columns, inside, QMAX)
