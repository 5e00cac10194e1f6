"""Device code of `semi_structured_int8_linear`: a tile of the weight from its pairs and their places."""

import triton
import triton.language as tl


@triton.jit
def interleaved(first, second, third, fourth):
    """Columns 0, 4, ..., then 1, 5, ... and so on, [BLOCK_N, G] each, as one tile [BLOCK_N, 4 G]."""
    joined = tl.join(tl.join(first, third), tl.join(second, fourth))
    return tl.reshape(joined, (joined.shape[0], 4 * joined.shape[1]))


@triton.jit
def pairs_tile(values, indices, rows, k, K, N, BLOCK_K: tl.constexpr):
    """int8 [BLOCK_N, BLOCK_K]: the weight's rows `rows` and columns from k, a multiple of 4.

    values: int8 [N, K / 2], two of every four columns. indices: uint8 [N, ceil(K / 8)], four bits for every four
    columns: the places of the two that are kept, the first place in the lower two bits.
    """
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
