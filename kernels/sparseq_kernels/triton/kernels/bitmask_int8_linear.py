"""Device code of `bitmask_int8_linear`: a tile of the weight from its bits and its values."""

import triton
import triton.language as tl

from ...numerics import packing

CHUNK = tl.constexpr(packing.CHUNK)


@triton.jit
def bitmask_tile(values, bits, offsets, rows, k, K, N, CHUNKS):
    """int8 [BLOCK_N, CHUNK]: the weight's rows `rows` and columns k + [0, CHUNK), k a multiple of CHUNK.

    bits: uint8 [N, K / 8], the first column in the lowest bit. offsets: int32 [N, CHUNKS], where each chunk's values
    begin.
    """
    depth = k + tl.arange(0, CHUNK)
    inside = (rows[:, None] < N) & (depth[None, :] < K)
    stride = tl.cdiv(K, 8)
    byte = tl.load(bits + rows.to(tl.int64)[:, None] * stride + (depth // 8)[None, :], mask=inside, other=0)
    kept = (byte.to(tl.int32) >> (depth % 8)[None, :]) & 1
    first = tl.load(offsets + rows.to(tl.int64) * CHUNKS + k // CHUNK, mask=rows < N, other=0)
    at = first[:, None] + tl.cumsum(kept, axis=1) - kept
    return tl.load(values + at, mask=kept != 0, other=0)
