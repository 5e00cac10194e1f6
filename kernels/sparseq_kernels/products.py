"""By which op a stored weight is multiplied where it is not expanded, and with which tensors."""

import torch
from torch import Tensor

from .formats import BlockBitmapWeight, PackedWeight, SemiStructuredWeight
from .numerics import chunk_offsets, pack_mask, unpack_mask

# Sides of blocks that matrix units take as they are.
BLOCKS = (16, 32, 64, 128)
# Where a product by a weight as stored was faster than by the same weight expanded to int8, on an H100
# (docs/gpu.md): in blocks of this side or larger, of which no more than this share is kept, for so many rows of x or
# more. Bitmasks and 2:4 were slower for any number of rows.
LEAST_SIDE, MOST_KEPT, LEAST_ROWS = 64, 0.25, 4096


def pays(weight: PackedWeight) -> bool:
    """Whether multiplying by the weight as stored is faster, from LEAST_ROWS rows of x on."""
    if not isinstance(weight, BlockBitmapWeight) or min(weight.block) < LEAST_SIDE:
        return False
    return weight.kept() <= MOST_KEPT * weight.shape[0] * weight.shape[1]


def operands(weight: PackedWeight) -> tuple[str, tuple[Tensor, ...]] | None:
    """(the op, the tensors between x and the weight's scale); None for a weight that must be expanded: a dense one, one
    of other than 8 bits, or one in blocks of another size than BLOCKS."""
    if isinstance(weight, SemiStructuredWeight):
        return "semi_structured_int8_linear", (weight.values, weight.indices)
    if not isinstance(weight, BlockBitmapWeight) or weight.bits != 8:
        return None
    if weight.block == (1, 1):
        return "bitmask_int8_linear", (weight.values, *row_bits(weight.bitmap, weight.shape))
    if all(side in BLOCKS for side in weight.block):
        return "block_sparse_int8_linear", _blocks(weight)
    return None


def row_bits(bitmap: Tensor, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """(bits uint8 [N, ceil(K / 8)], each row's own; offsets int32 [N, ceil(K / CHUNK)], where the values of each CHUNK
    columns begin) of one bit a weight, `bitmap` uint8 [ceil(N * K / 8)]."""
    rows, columns = shape
    kept = unpack_mask(bitmap, rows * columns).reshape(rows, columns)
    bits = pack_mask(kept) if columns % 8 else bitmap.reshape(rows, columns // 8)
    return bits, chunk_offsets(kept)


def _blocks(weight: BlockBitmapWeight) -> tuple[Tensor, ...]:
    """(values [blocks, R, C], their columns of blocks, where each row of blocks begins, the rows of blocks by
    descending length), the latter int32."""
    (rows, columns), (r, c) = weight.shape, weight.block
    kept = unpack_mask(weight.bitmap, rows * columns // (r * c)).reshape(rows // r, columns // c)
    counts = kept.sum(1)
    offsets = torch.nn.functional.pad(counts.cumsum(0), (1, 0))
    order = counts.argsort(descending=True, stable=True)
    block_columns = kept.nonzero()[:, 1]
    return (weight.values.reshape(-1, r, c), *(t.to(torch.int32) for t in (block_columns, offsets, order)))
