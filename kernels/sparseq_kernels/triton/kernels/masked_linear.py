"""Device code of `masked_linear`: products by a block index (`BlockIndex`), which says what tiles keep a weight.

Nothing of the other tiles is loaded or multiplied. The weight is masked before, and quantized where that is wanted: a
product that masked its operand after the load would wait for that in every step.
"""

import triton
import triton.language as tl

from .epilogue import store_outputs, store_tile
from .qat_linear import product
from .quantize_rows import row_values, store_quantized
from .tiles import place, tile_place


@triton.jit
def tile_values_kernel(
    weight,  # [N, K] floating
    mask,  # uint8 [N, ceil(K / 8)], bit by bit; without lists [N, K]
    kept,  # int32: the numbers of the tiles to write; None writes all
    count,  # int32 [1]: how many these are
    scale,  # [N], or None
    values,  # [N, K] floating, or int8; written in those tiles
    N,
    K,
    stride_wn,
    QMAX: tl.constexpr,  # 0 leaves values as they are
    CLIP: tl.constexpr,
    TILE: tl.constexpr,
    ROWS: tl.constexpr,  # of a tile, that a program writes
):
    """Writes the masked weight of the tiles in `kept`, quantized or fake-quantized if QMAX is not 0."""
    tile = tl.program_id(0) // (TILE // ROWS)
    first = tl.program_id(0) % (TILE // ROWS) * ROWS
    listed = tile >= 0
    BITS: tl.constexpr = kept is not None
    if BITS:
        listed = tile < tl.load(count)
        tile = tl.load(kept + tile)
    tiles_k = tl.cdiv(K, TILE)
    rows = tile // tiles_k * TILE + first + tl.arange(0, ROWS)
    columns = tile % tiles_k * TILE + tl.arange(0, TILE)
    inside = (rows[:, None] < N) & (columns[None, :] < K) & listed
    far = rows.to(tl.int64)[:, None]
    mask_at = mask + far * (tl.cdiv(K, 8) if BITS else K)
    found = row_values(weight + far * stride_wn, mask_at, columns, inside, "none", BITS)
    values += far * K
    if QMAX > 0:
        store_quantized(values, found, tl.load(scale + rows, mask=rows < N, other=1.0), columns, inside, QMAX, CLIP)
    else:
        tl.store(values + columns[None, :], found.to(values.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["M"])
def tile_product_kernel(
    a,  # [M, D] floating, or int8
    b,  # of the same type: [C, D] if ROWS, else [D, C]
    tiles,  # int32 [tiles of C, tiles of D]: of each column of out those tiles of depth that are not empty, first
    counts,  # int32 [tiles of C]: how many these are
    a_scale,  # int8: [M], or one; else None
    b_scale,  # int8: [C]; else None
    bias,  # [C], or None
    out,  # [M, C]
    M,
    C,
    D,
    stride_am,
    ROWS: tl.constexpr,
    A_STRIDE: tl.constexpr,  # of its scales: 1, or 0 if there is one in all
    PRECISION: tl.constexpr,
    EVEN_D: tl.constexpr,
    RUN_C: tl.constexpr,  # as RUN of `place`
    BLOCK_M: tl.constexpr,
    TILE: tl.constexpr,
    BLOCK_K: tl.constexpr,  # a divisor of TILE
    GROUP_M: tl.constexpr,
    PARTS: tl.constexpr,
):
    """out = a b^T, or a b unless ROWS, over the tiles of b that keep a weight."""
    tile_m, tile_c = tile_place(tl.program_id(0), tl.cdiv(M, BLOCK_M), tl.cdiv(C, TILE), GROUP_M)
    rows, a_rows = place(tile_m, M, BLOCK_M)
    columns, b_columns = place(tile_c, C, TILE, RUN_C)
    depth = tl.arange(0, BLOCK_K)
    a_at = a + a_rows.to(tl.int64)[:, None] * stride_am + depth[None, :]
    if ROWS:
        b_at = b + b_columns.to(tl.int64)[:, None] * D + depth[None, :]
    else:
        b_at = b + depth.to(tl.int64)[:, None] * C + b_columns[None, :]
    tiles += tile_c * tl.cdiv(D, TILE)
    count = tl.load(counts + tile_c)
    INTEGERS: tl.constexpr = a_scale is not None
    acc = tl.zeros((BLOCK_M, TILE), tl.int32 if INTEGERS else tl.float32)
    following = tl.load(tiles)
    STEPS: tl.constexpr = TILE // BLOCK_K
    for i in range(0, count * STEPS):
        # The number of a tile is known one step before the tile is loaded, or each load would wait for another.
        k = following * TILE + i % STEPS * BLOCK_K
        following = tl.load(tiles + (i + 1) // STEPS, mask=i + 1 < count * STEPS, other=0)
        b_step = k if ROWS else k.to(tl.int64) * C
        if EVEN_D:
            a_tile = tl.load(a_at + k)
            b_tile = tl.load(b_at + b_step)
        else:
            left = depth < D - k
            a_tile = tl.load(a_at + k, mask=left[None, :], other=0)
            b_tile = tl.load(b_at + b_step, mask=left[None, :] if ROWS else left[:, None], other=0)
        b_tile = tl.trans(b_tile) if ROWS else b_tile
        if INTEGERS:
            acc = tl.dot(a_tile, b_tile, acc, out_dtype=tl.int32)
        else:
            acc = product(a_tile, b_tile, acc, PRECISION)
    if INTEGERS:
        store_tile(acc, a_scale, b_scale, bias, out, None, tile_m, tile_c, M, C, A_STRIDE, True, "none", PARTS)
    else:
        store_outputs(acc, None, None, bias, out, None, rows, columns, M, C, False, "none")


@triton.jit
def shares(count, programs, most):
    """How many programs share the depth of each of `count` tiles: as many as keep all `programs` busy, at most one sum
    each."""
    return tl.maximum(1, tl.minimum(most, programs // tl.maximum(count, 1)))


@triton.jit
def store_gradient(acc, bits, out, tile, first, N, K, TILE: tl.constexpr):
    """Stores rows of a tile of the weight's gradient, from row `first` of the tile on, zero where masked."""
    tiles_k = tl.cdiv(K, TILE)
    rows = tile // tiles_k * TILE + first + tl.arange(0, acc.shape[0])
    columns = tile % tiles_k * TILE + tl.arange(0, TILE)
    inside = (rows[:, None] < N) & (columns[None, :] < K)
    far = rows.to(tl.int64)[:, None]
    byte = tl.load(bits + far * tl.cdiv(K, 8) + (columns // 8)[None, :], mask=inside, other=0).to(tl.int32)
    acc = tl.where(((byte >> (columns % 8)[None, :]) & 1) != 0, acc, 0.0)
    tl.store(out + far * K + columns[None, :], acc.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["M", "most"])
def tile_gradient_kernel(
    g,  # [M, N]
    x,  # [M, K], of the same type
    bits,  # uint8 [N, ceil(K / 8)]: the mask
    kept,  # int32: the tiles that are not empty, by number
    count,  # int32 [1]: how many these are
    out,  # [N, K], written in those tiles
    sums,  # fp32 [programs, TILE, TILE], for tiles whose depth is shared
    M,
    N,
    K,
    stride_gm,
    stride_xm,
    most,  # programs that share a tile's depth
    PRECISION: tl.constexpr,
    EVEN_M: tl.constexpr,
    RUN_N: tl.constexpr,  # as RUN of `place`
    RUN_K: tl.constexpr,
    TILE: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """out = (g^T x) o mask. How programs share the tiles follows from their number, which only the device knows."""
    programs = tl.num_programs(0)
    found = tl.load(count)
    split = shares(found, programs, most)
    share = tl.cdiv(tl.cdiv(M, BLOCK_D), split) * BLOCK_D
    tiles_k = tl.cdiv(K, TILE)
    depth = tl.arange(0, BLOCK_D)
    for item in range(tl.program_id(0), found * split, programs):
        tile = tl.load(kept + item % found)
        first = item // found * share
        _, g_read = place(tile // tiles_k, N, TILE, RUN_N)
        _, x_read = place(tile % tiles_k, K, TILE, RUN_K)
        steps = (first + depth).to(tl.int64)[:, None]
        g_at = g + steps * stride_gm + g_read[None, :]
        x_at = x + steps * stride_xm + x_read[None, :]
        acc = tl.zeros((TILE, TILE), tl.float32)
        for d in range(first, tl.minimum(M, first + share), BLOCK_D):
            if EVEN_M:
                g_tile = tl.load(g_at)
                x_tile = tl.load(x_at)
            else:
                left = depth < M - d
                g_tile = tl.load(g_at, mask=left[:, None], other=0.0)
                x_tile = tl.load(x_at, mask=left[:, None], other=0.0)
            acc = product(tl.trans(g_tile), x_tile, acc, PRECISION)
            g_at += tl.cast(stride_gm, tl.int64) * BLOCK_D
            x_at += tl.cast(stride_xm, tl.int64) * BLOCK_D
        if split == 1:
            store_gradient(acc, bits, out, tile, 0, N, K, TILE)
        else:
            at = sums + tl.cast(item, tl.int64) * TILE * TILE
            tl.store(at + tl.arange(0, TILE)[:, None] * TILE + tl.arange(0, TILE)[None, :], acc)


@triton.jit(do_not_specialize=["programs", "most"])
def tile_gradient_sum_kernel(
    sums,  # fp32 [programs, TILE, TILE]
    bits,  # uint8 [N, ceil(K / 8)]
    kept,  # int32
    count,  # int32 [1]
    out,  # [N, K]
    N,
    K,
    programs,  # of `tile_gradient_kernel`
    most,
    TILE: tl.constexpr,
    ROWS: tl.constexpr,  # of a tile, that a program adds up
):
    """The epilogue of `tile_gradient_kernel` where programs share the depth: adds up in their order and stores."""
    index = tl.program_id(0) // (TILE // ROWS)
    first = tl.program_id(0) % (TILE // ROWS) * ROWS
    found = tl.load(count)
    split = shares(found, programs, most)
    if (index < found) & (split > 1):
        at = sums + index.to(tl.int64) * TILE * TILE
        at += (first + tl.arange(0, ROWS))[:, None] * TILE + tl.arange(0, TILE)[None, :]
        acc = tl.load(at)
        for _ in range(1, split):
            at += found.to(tl.int64) * TILE * TILE
            acc += tl.load(at)
        store_gradient(acc, bits, out, tl.load(kept + index), first, N, K, TILE)
