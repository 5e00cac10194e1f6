"""Device code of products by a weight that is decoded tile by tile, of the formats "bitmask" and "2:4".

The kernel that multiplies decodes the tiles, or `decode_kernel` once before, where many rows of x would decode them
anew.
"""

import triton
import triton.language as tl

from .bitmask_int8_linear import bitmask_tile
from .epilogue import store_outputs
from .semi_structured_int8_linear import pairs_tile
from .tiles import place


@triton.jit
def decoded_tile(values, places, offsets, rows, k, K, N, CHUNKS, FORMAT: tl.constexpr, BLOCK_K: tl.constexpr):
    if FORMAT == "bitmask":
        tile = bitmask_tile(values, places, offsets, rows, k, K, N, CHUNKS)
    else:
        tile = pairs_tile(values, places, rows, k, K, N, BLOCK_K)
    return tile


@triton.jit
def decode_kernel(
    values,
    places,  # a bitmask's bits, or the indices of 2:4
    offsets,  # of a bitmask, or None
    out,  # [N, K] int8
    N,
    K,
    CHUNKS,
    FORMAT: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    rows = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    k = tl.program_id(1) * BLOCK_K
    tile = decoded_tile(values, places, offsets, rows, k, K, N, CHUNKS, FORMAT, BLOCK_K)
    depth = k + tl.arange(0, BLOCK_K)
    inside = (rows[:, None] < N) & (depth[None, :] < K)
    tl.store(out + rows.to(tl.int64)[:, None] * K + depth[None, :], tile, mask=inside)


@triton.jit(do_not_specialize=["M"])
def decoding_linear_kernel(
    x,  # [M, K] int8
    x_scale,  # [M], or one
    values,
    places,
    offsets,
    w_scale,  # [N]
    bias,  # [N], or None
    out,  # [M, N]; if SPLIT > 1 the sums, int32 [SPLIT, M, N]
    M,
    N,
    K,
    CHUNKS,
    stride_xm,
    X_STRIDE: tl.constexpr,
    ACTIVATION: tl.constexpr,
    FORMAT: tl.constexpr,
    SPLIT: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """For few rows, which are bound by reading the weight. Programs share the depth as in `int8_skinny_kernel`."""
    part = tl.program_id(1)
    rows, x_rows = place(tl.program_id(2), M, BLOCK_M)
    columns = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    depth = tl.arange(0, BLOCK_K)
    x_at = x + x_rows.to(tl.int64)[:, None] * stride_xm + depth[None, :]
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.int32)
    share = tl.cdiv(tl.cdiv(K, BLOCK_K), SPLIT) * BLOCK_K
    for k in range(part * share, tl.minimum(K, (part + 1) * share), BLOCK_K):
        a = tl.load(x_at + k, mask=depth[None, :] < K - k, other=0)
        b = decoded_tile(values, places, offsets, columns, k, K, N, CHUNKS, FORMAT, BLOCK_K)
        acc = tl.dot(a, tl.trans(b), acc, out_dtype=tl.int32)
    if SPLIT > 1:
        at = (part.to(tl.int64) * M + rows[:, None]) * N + columns[None, :]
        tl.store(out + at, acc, mask=(rows[:, None] < M) & (columns[None, :] < N))
    else:
        xs = tl.load(x_scale + rows * X_STRIDE, mask=rows < M, other=1.0)
        store_outputs(acc, xs, w_scale, bias, out, None, rows, columns, M, N, True, ACTIVATION)
