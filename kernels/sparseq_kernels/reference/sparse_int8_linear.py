"""int8 products with a weight of which only what is kept is stored: expanded, and then multiplied as a dense one."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .int8_linear import int8_linear

# Columns of a bitmask that share one offset into the values.
CHUNK = 256


def from_blocks(values: Tensor, block_columns: Tensor, offsets: Tensor, columns: int) -> Tensor:
    """int8 [N, columns] of `values` int8 [blocks, R, C], of which row of blocks i has offsets[i] to offsets[i + 1], in
    the columns of blocks `block_columns`."""
    _, r, c = values.shape
    rows = len(offsets) - 1
    grid = torch.zeros(rows, columns // c, r, c, dtype=values.dtype, device=values.device)
    row = torch.repeat_interleave(torch.arange(rows, dtype=torch.int64, device=values.device), offsets.long().diff())
    grid[row, block_columns.long()] = values
    return grid.transpose(1, 2).reshape(rows * r, columns)


def from_bitmask(values: Tensor, bits: Tensor, columns: int) -> Tensor:
    """int8 [N, columns] of the kept `values`, row by row, and `bits` uint8 [N, ceil(columns / 8)], the first column in
    the lowest bit."""
    places = torch.arange(8, dtype=torch.uint8, device=bits.device)
    kept = ((bits.unsqueeze(-1) >> places) & 1).flatten(1)[:, :columns].bool()
    dense = torch.zeros(kept.shape, dtype=values.dtype, device=values.device)
    dense[kept] = values
    return dense


def chunk_offsets(kept: Tensor) -> Tensor:
    """int32 [N, ceil(K / CHUNK)]: where the values of each CHUNK columns begin, of which bool `kept` [N, K] tells."""
    counts = torch.nn.functional.pad(kept, (0, -kept.shape[1] % CHUNK)).unflatten(1, (-1, CHUNK)).sum(-1)
    ends = counts.flatten().cumsum(0).reshape(counts.shape)
    return (ends - counts).to(torch.int32)


def from_pairs(values: Tensor, indices: Tensor) -> Tensor:
    """int8 [N, K] of `values` int8 [N, K / 2], two of every four columns, and `indices` uint8 [N, ceil(K / 8)]: four
    bits for four columns, where the two stand, the first in the lower bits."""
    rows, half = values.shape
    nibbles = torch.stack((indices & 15, indices >> 4), dim=-1).flatten(1)[:, : half // 2]
    places = torch.stack((nibbles & 3, nibbles >> 2), dim=-1).long()
    dense = torch.zeros(rows, half // 2, 4, dtype=values.dtype, device=values.device)
    return dense.scatter(2, places, values.reshape(rows, half // 2, 2)).flatten(1)


def expanded(format: str, stored: Sequence[Tensor], columns: int) -> Tensor:
    """int8 [N, columns] of the tensors that an int8 product takes between x and the weight's scale."""
    if format == "block_sparse":
        values, block_columns, offsets, _ = stored
        return from_blocks(values, block_columns, offsets, columns)
    if format == "bitmask":
        values, bits, _ = stored
        return from_bitmask(values, bits, columns)
    return from_pairs(*stored) if format == "semi_structured" else stored[0]


# `rest` of each: as in `int8_linear` from the weight's scale on, without the output's.


def block_sparse_int8_linear(
    x: Tensor, values: Tensor, block_columns: Tensor, offsets: Tensor, order: Tensor, *rest: Any
) -> Tensor:
    return int8_linear(x, from_blocks(values, block_columns, offsets, x.shape[-1]), *rest)


def bitmask_int8_linear(x: Tensor, values: Tensor, bits: Tensor, offsets: Tensor, *rest: Any) -> Tensor:
    return int8_linear(x, from_bitmask(values, bits, x.shape[-1]), *rest)


def semi_structured_int8_linear(x: Tensor, values: Tensor, indices: Tensor, *rest: Any) -> Tensor:
    return int8_linear(x, from_pairs(values, indices), *rest)
