"""Packed layouts of masks and quantized values: several to a byte, or only those that are kept.

Each `unpack_*` and `from_*` is exact. They are what formats, the reference and the backends share about bits in memory.
"""

import torch
from torch import Tensor

from ..errors import InputError

# Columns of a bitmask that share one offset into the values.
CHUNK = 256


def pack_int4(values: Tensor) -> Tensor:
    """int8 in [-8, 7], [..., n] -> uint8 [..., ceil(n / 2)]: two's complement nibbles, the lower one first."""
    if values.shape[-1] % 2:
        values = torch.nn.functional.pad(values, (0, 1))
    nibbles = values.view(torch.uint8) & 15
    return nibbles[..., ::2] | (nibbles[..., 1::2] << 4)


def unpack_int4(packed: Tensor, count: int) -> Tensor:
    """The inverse of `pack_int4`: uint8 [..., ceil(n / 2)] -> int8 [..., n], n = count."""
    nibbles = unpack_nibbles(packed)[..., :count]
    return (nibbles ^ 8).view(torch.int8) - 8


def unpack_nibbles(packed: Tensor) -> Tensor:
    """uint8 [..., n] -> uint8 [..., 2 n]: the lower four bits of each byte, then its upper four."""
    return torch.stack((packed & 15, packed >> 4), dim=-1).flatten(-2)


def pack_mask(mask: Tensor) -> Tensor:
    """bool [..., n] -> uint8 [..., ceil(n / 8)]: bit j of byte i, counted from the lowest, is flag 8 i + j."""
    padded = torch.nn.functional.pad(mask.to(torch.uint8), (0, -mask.shape[-1] % 8)).unflatten(-1, (-1, 8))
    return (padded << torch.arange(8, dtype=torch.uint8, device=mask.device)).sum(-1, dtype=torch.uint8)


def unpack_mask(bits: Tensor, columns: int) -> Tensor:
    """The inverse of `pack_mask`: uint8 [..., ceil(n / 8)] -> bool [..., n], n = columns."""
    flags = (bits.unsqueeze(-1) >> torch.arange(8, dtype=torch.uint8, device=bits.device)) & 1
    return flags.flatten(-2)[..., :columns].bool()


def from_blocks(values: Tensor, block_columns: Tensor, offsets: Tensor, columns: int) -> Tensor:
    """The dense matrix [N, columns] of kept blocks, stored as in a block-compressed row format (BSR).

    values: [blocks, R, C], row by row of blocks. Row of blocks i has the blocks offsets[i] to offsets[i + 1] - 1, and
    block b stands in the column of blocks block_columns[b].
    """
    _, r, c = values.shape
    rows = len(offsets) - 1
    grid = torch.zeros(rows, columns // c, r, c, dtype=values.dtype, device=values.device)
    row = torch.repeat_interleave(torch.arange(rows, dtype=torch.int64, device=values.device), offsets.long().diff())
    grid[row, block_columns.long()] = values
    return grid.transpose(1, 2).reshape(rows * r, columns)


def from_bitmask(values: Tensor, bits: Tensor, columns: int) -> Tensor:
    """The dense matrix [N, columns] of kept weights.

    values: [kept], row by row. bits: uint8 [N, ceil(columns / 8)], as `pack_mask` makes them.
    """
    kept = unpack_mask(bits, columns)
    dense = torch.zeros(kept.shape, dtype=values.dtype, device=values.device)
    dense[kept] = values
    return dense


def chunk_offsets(kept: Tensor) -> Tensor:
    """int32 [N, ceil(K / CHUNK)]: where the values of each CHUNK columns begin, for a mask `kept` bool [N, K]."""
    counts = torch.nn.functional.pad(kept, (0, -kept.shape[1] % CHUNK)).unflatten(1, (-1, CHUNK)).sum(-1)
    ends = counts.flatten().cumsum(0).reshape(counts.shape)
    return (ends - counts).to(torch.int32)


def from_pairs(values: Tensor, indices: Tensor) -> Tensor:
    """The dense matrix [N, K] of a 2:4 sparse one.

    values: [N, K / 2], two of every four columns. indices: uint8 [N, ceil(K / 8)], four bits for every four columns:
    the column of the first value in the lower two bits, that of the second in the upper two.
    """
    rows, half = values.shape
    nibbles = unpack_nibbles(indices)[:, : half // 2]
    places = torch.stack((nibbles & 3, nibbles >> 2), dim=-1).long()
    dense = torch.zeros(rows, half // 2, 4, dtype=values.dtype, device=values.device)
    return dense.scatter(2, places, values.reshape(rows, half // 2, 2)).flatten(1)


def check_pairs(indices: Tensor, columns: int, where: str) -> None:
    """Raises InputError unless the second of every two values stands after the first.

    indices: as in `from_pairs`, of a matrix with so many columns. where: begins the message.
    """
    nibbles = unpack_nibbles(indices)[:, : columns // 4]
    if wrong := int(((nibbles & 3) >= (nibbles >> 2)).sum()):
        raise InputError(f"{where}: in {wrong} groups of four columns the second value does not stand after the first")
