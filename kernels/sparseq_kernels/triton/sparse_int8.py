"""Products of int8 x with a weight of which only what is kept is stored, in three layouts.

"blocks" walks the blocks that a row of blocks has. "bitmask" and "2:4" are decoded to tiles of int8 in the kernel that
multiplies them, or by `decode_kernel` once where many rows of x would decode them anew.
"""

import triton
import triton.language as tl

from .int8_gemm import place, store_outputs, store_tile

# Columns of a bitmask that share one offset into the values.
CHUNK = tl.constexpr(256)


@triton.jit
def bitmask_tile(values, bits, offsets, rows, k, K, N, CHUNKS):
    """Levels [BLOCK_N, CHUNK] of rows `rows` and columns k + [0, CHUNK), k a multiple of CHUNK. bits: uint8 [N, K / 8],
    the first column in the lowest bit. offsets: int32 [N, CHUNKS], where each chunk's values begin."""
    depth = k + tl.arange(0, CHUNK)
    inside = (rows[:, None] < N) & (depth[None, :] < K)
    stride = tl.cdiv(K, 8)
    byte = tl.load(bits + rows.to(tl.int64)[:, None] * stride + (depth // 8)[None, :], mask=inside, other=0)
    kept = (byte.to(tl.int32) >> (depth % 8)[None, :]) & 1
    first = tl.load(offsets + rows.to(tl.int64) * CHUNKS + k // CHUNK, mask=rows < N, other=0)
    at = first[:, None] + tl.cumsum(kept, axis=1) - kept
    return tl.load(values + at, mask=kept != 0, other=0)


@triton.jit
def interleaved(first, second, third, fourth):
    """Columns 0, 4, ..., then 1, 5, ... and so on, [BLOCK_N, G] each, as one tile [BLOCK_N, 4 G]."""
    joined = tl.join(tl.join(first, third), tl.join(second, fourth))
    return tl.reshape(joined, (joined.shape[0], 4 * joined.shape[1]))


@triton.jit
def pairs_tile(values, indices, rows, k, K, N, BLOCK_K: tl.constexpr):
    """Levels [BLOCK_N, BLOCK_K] of rows `rows` and columns from k, a multiple of 4. values: int8 [N, K / 2], two of
    every four columns. indices: uint8 [N, ceil(K / 8)], four bits for four columns: where the two stand, the first in
    the lower bits."""
    row = rows.to(tl.int64)[:, None]
    four = (k // 4 + tl.arange(0, BLOCK_K // 4))[None, :]
    inside = (rows[:, None] < N) & (four < K // 4)
    byte = tl.load(indices + row * tl.cdiv(K, 8) + four // 2, mask=inside, other=0).to(tl.int32)
    pairs = values.to(tl.pointer_type(tl.int16), bitcast=True)
    pair = tl.load(pairs + row * (K // 4) + four, mask=inside, other=0)
    first, second = pair.to(tl.int8), (pair >> 8).to(tl.int8)
    one, other = (byte >> (four % 2 * 4)) & 3, (byte >> (four % 2 * 4 + 2)) & 3
    return interleaved(
        tl.where(one == 0, first, tl.where(other == 0, second, 0)).to(tl.int8),
        tl.where(one == 1, first, tl.where(other == 1, second, 0)).to(tl.int8),
        tl.where(one == 2, first, tl.where(other == 2, second, 0)).to(tl.int8),
        tl.where(one == 3, first, tl.where(other == 3, second, 0)).to(tl.int8),
    )


@triton.jit
def decoded_tile(values, extra, offsets, rows, k, K, N, CHUNKS, FORMAT: tl.constexpr, BLOCK_K: tl.constexpr):
    if FORMAT == "bitmask":
        tile = bitmask_tile(values, extra, offsets, rows, k, K, N, CHUNKS)
    else:
        tile = pairs_tile(values, extra, rows, k, K, N, BLOCK_K)
    return tile


@triton.jit
def decode_kernel(
    values,
    extra,  # a bitmask's bits, or the indices of 2:4
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
    tile = decoded_tile(values, extra, offsets, rows, k, K, N, CHUNKS, FORMAT, BLOCK_K)
    depth = k + tl.arange(0, BLOCK_K)
    inside = (rows[:, None] < N) & (depth[None, :] < K)
    tl.store(out + rows.to(tl.int64)[:, None] * K + depth[None, :], tile, mask=inside)


@triton.jit(do_not_specialize=["M"])
def decoding_linear_kernel(
    x,  # [M, K] int8
    x_scale,  # [M], or one
    values,
    extra,
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
    """For few rows, where reading the weight is what takes the time. Programs share the depth as in
    `int8_skinny_kernel`."""
    part = tl.program_id(1)
    rows, x_rows = place(tl.program_id(2), M, BLOCK_M)
    columns = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    depth = tl.arange(0, BLOCK_K)
    x_at = x + x_rows.to(tl.int64)[:, None] * stride_xm + depth[None, :]
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.int32)
    share = tl.cdiv(tl.cdiv(K, BLOCK_K), SPLIT) * BLOCK_K
    for k in range(part * share, tl.minimum(K, (part + 1) * share), BLOCK_K):
        a = tl.load(x_at + k, mask=depth[None, :] < K - k, other=0)
        b = decoded_tile(values, extra, offsets, columns, k, K, N, CHUNKS, FORMAT, BLOCK_K)
        acc = tl.dot(a, tl.trans(b), acc, out_dtype=tl.int32)
    if SPLIT > 1:
        at = (part.to(tl.int64) * M + rows[:, None]) * N + columns[None, :]
        tl.store(out + at, acc, mask=(rows[:, None] < M) & (columns[None, :] < N))
    else:
        xs = tl.load(x_scale + rows * X_STRIDE, mask=rows < M, other=1.0)
        store_outputs(acc, xs, w_scale, bias, out, None, rows, columns, M, N, True, ACTIVATION)


@triton.jit(do_not_specialize=["M"])
def block_sparse_kernel(
    x,  # [M, K] int8
    x_scale,  # [M], or one
    values,  # [blocks, ROWS, COLUMNS] int8
    block_columns,  # [blocks] int32: the column of blocks that each is in, ascending in a row of blocks
    offsets,  # [N / ROWS + 1] int32: where each row of blocks begins
    order,  # [N / ROWS] int32: the rows of blocks, those with the most blocks first
    w_scale,  # [N]
    bias,  # [N], or None
    out,  # [M, N]
    M,
    N,
    K,
    stride_xm,
    X_STRIDE: tl.constexpr,
    ACTIVATION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PARTS: tl.constexpr,
):
    """The tiles of a row of blocks take as long as it has blocks. The longest begin first, and whichever processor is
    free takes the next, so that uneven rows end together."""
    tiles_m = tl.cdiv(M, BLOCK_M)
    row = tl.load(order + tl.program_id(0) // tiles_m)
    tile_m = tl.program_id(0) % tiles_m
    _, x_rows = place(tile_m, M, BLOCK_M)
    x_at = x + x_rows.to(tl.int64)[:, None] * stride_xm
    depth = tl.arange(0, BLOCK_K)
    begin = tl.load(offsets + row)
    end = tl.load(offsets + row + 1)
    acc = tl.zeros((BLOCK_M, ROWS), tl.int32)
    w_at = values + begin.to(tl.int64) * (ROWS * COLUMNS) + tl.arange(0, ROWS)[:, None] * COLUMNS
    if BLOCK_K == COLUMNS:
        for block in range(begin, end):
            a = tl.load(x_at + (tl.load(block_columns + block) * COLUMNS + depth)[None, :])
            b = tl.load(w_at + depth[None, :])
            acc = tl.dot(a, tl.trans(b), acc, out_dtype=tl.int32)
            w_at += ROWS * COLUMNS
    else:
        # Several narrow blocks make one step of the product.
        within = depth % COLUMNS
        ahead = depth // COLUMNS
        for first in range(begin, end, BLOCK_K // COLUMNS):
            block = first + ahead
            there = block < end
            k = tl.load(block_columns + block, mask=there, other=0) * COLUMNS + within
            k = tl.max_contiguous(tl.multiple_of(k, 16), 16)
            a = tl.load(x_at + k[None, :], mask=there[None, :], other=0)
            at = ahead * (ROWS * COLUMNS) + within
            b = tl.load(w_at + at[None, :], mask=there[None, :], other=0)
            acc = tl.dot(a, tl.trans(b), acc, out_dtype=tl.int32)
            w_at += BLOCK_K * ROWS
    store_tile(acc, x_scale, w_scale, bias, out, None, tile_m, row, M, N, X_STRIDE, True, ACTIVATION, PARTS)
