"""Which blocks of a weight's mask keep anything: indices by which a matrix product skips the others.

They are made on the mask's device, once for each mask, and do not depend on the weight's values.
"""

import functools
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from .numerics import pack_mask

BLOCK = 64
"""Rows and columns of a block."""


@dataclass(frozen=True)
class BlockIndex:
    """A mask [N, K] bit by bit, and which of its Nb x Kb blocks of BLOCK x BLOCK weights keep anything.

    Each index tensor holds all blocks of its row, column or matrix: first those that keep anything, as many as its
    count says, then the others. Only the first part is meant to be read.
    """

    bits: Tensor  # uint8 [N, ceil(K / 8)]: bit j of byte i, counted from the lowest, is column 8 i + j
    rows: Tensor  # int32 [Nb, Kb]: for each row of blocks the columns of those that keep anything, ascending
    row_counts: Tensor  # int32 [Nb]
    columns: Tensor  # int32 [Kb, Nb]: for each column of blocks the rows of those that keep anything, ascending
    column_counts: Tensor  # int32 [Kb]
    kept: Tensor  # int32 [Nb * Kb]: row * Kb + column of those that keep anything, ascending
    count: Tensor  # int32 [1]
    density: float  # the share of blocks that keep anything; 0 where there are none

    @classmethod
    def from_mask(cls, mask: Tensor) -> "BlockIndex":
        """The index of a bool mask [N, K]. Waits for the device once, for the density."""
        grid = _kept_blocks(mask)
        columns = grid.t().contiguous()
        count = grid.sum().to(torch.int32).reshape(1)
        density = int(count) / max(1, grid.numel())
        flat = _kept_first(grid.reshape(1, -1)).reshape(-1)
        counts = (grid.sum(1, dtype=torch.int32), columns.sum(1, dtype=torch.int32))
        return cls(pack_mask(mask), _kept_first(grid), counts[0], _kept_first(columns), counts[1], flat, count, density)

    def tensors(self) -> list[Tensor]:
        """What ops take as `block_index`."""
        return [getattr(self, name) for name in NAMES]


NAMES = tuple(field.name for field in fields(BlockIndex) if field.name != "density")
"""The names of `BlockIndex.tensors()`, in their order."""


@functools.lru_cache(maxsize=4096)
def layout(N: int, K: int) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Shape and dtype of each of `BlockIndex.tensors()` for a mask [N, K]."""
    rows, columns = -(-N // BLOCK), -(-K // BLOCK)
    shapes = ((N, -(-K // 8)), (rows, columns), (rows,), (columns, rows), (columns,), (rows * columns,), (1,))
    return {
        name: (shape, torch.uint8 if name == "bits" else torch.int32) for name, shape in zip(NAMES, shapes, strict=True)
    }


def _kept_blocks(mask: Tensor) -> Tensor:
    """bool [Nb, Kb]: whether a block keeps anything."""
    (N, K), rows, columns = mask.shape, *(-(-size // BLOCK) for size in mask.shape)
    padded = mask.new_zeros(rows * BLOCK, columns * BLOCK)
    padded[:N, :K] = mask
    return padded.reshape(rows, BLOCK, columns, BLOCK).any(3).any(1)


def _kept_first(grid: Tensor) -> Tensor:
    """int32 [R, C]: the columns of bool `grid` [R, C] that are True, ascending, before those that are not."""
    return torch.argsort((~grid).to(torch.uint8), dim=1, stable=True).to(torch.int32)
