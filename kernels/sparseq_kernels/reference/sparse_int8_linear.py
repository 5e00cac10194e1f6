"""int8 products with a weight of which only what is kept is stored: expanded, and then multiplied as a dense one."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ..numerics import CHUNK as CHUNK
from ..numerics import chunk_offsets as chunk_offsets
from ..numerics import from_bitmask, from_blocks, from_pairs
from .int8_linear import int8_linear


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
