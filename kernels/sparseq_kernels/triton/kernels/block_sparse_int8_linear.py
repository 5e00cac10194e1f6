"""Device code of `block_sparse_int8_linear`: a product that walks the blocks that a row of blocks has."""

import triton
import triton.language as tl

from .epilogue import store_tile
from .tiles import place


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
    """A program computes one tile, over the blocks that its row of blocks has.

    Rows with the most blocks begin first, and whichever SM is free takes the next tile, so that uneven rows end
    together.
    """
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
