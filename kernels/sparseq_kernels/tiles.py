"""Which tiles of a weight's mask keep anything: lists by which a product leaves out the others.

They are made on the mask's device, once for each mask, and say nothing of the weight's values.
"""

import functools
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from .numerics import pack_mask

# Rows and columns of a tile.
TILE = 64


@dataclass(frozen=True)
class TileLists:
    """A mask [N, K] bit by bit, and its Nt x Kt tiles of TILE x TILE weights, of which some keep a weight.

    Of each list only the beginning is of use, as many entries as its count says; the others are tiles too.
    """

    bits: Tensor  # uint8 [N, ceil(K / 8)]: bit j of byte i, counted from the lowest, is column 8 i + j
    rows: Tensor  # int32 [Nt, Kt]: of each row of tiles the columns of those that keep anything, ascending
    row_counts: Tensor  # int32 [Nt]
    columns: Tensor  # int32 [Kt, Nt]: of each column of tiles the rows of those that keep anything, ascending
    column_counts: Tensor  # int32 [Kt]
    kept: Tensor  # int32 [Nt * Kt]: row * Kt + column of those that keep anything, ascending
    count: Tensor  # int32 [1]
    density: float  # the share of tiles that keep anything; 0 where there are none

    @classmethod
    def from_mask(cls, mask: Tensor) -> "TileLists":
        """The lists of a bool mask [N, K]. Waits for the device once, for the density."""
        grid = _kept_tiles(mask)
        columns = grid.t().contiguous()
        count = grid.sum().to(torch.int32).reshape(1)
        density = int(count) / max(1, grid.numel())
        flat = _first(grid.reshape(1, -1)).reshape(-1)
        counts = (grid.sum(1, dtype=torch.int32), columns.sum(1, dtype=torch.int32))
        return cls(pack_mask(mask), _first(grid), counts[0], _first(columns), counts[1], flat, count, density)

    def tensors(self) -> list[Tensor]:
        """What ops take as `tiles`."""
        return [getattr(self, name) for name in NAMES]


NAMES = tuple(field.name for field in fields(TileLists) if field.name != "density")


@functools.lru_cache(maxsize=4096)
def layout(N: int, K: int) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Shape and dtype of each of `TileLists.tensors()` for a mask [N, K]."""
    rows, columns = -(-N // TILE), -(-K // TILE)
    shapes = ((N, -(-K // 8)), (rows, columns), (rows,), (columns, rows), (columns,), (rows * columns,), (1,))
    return {
        name: (shape, torch.uint8 if name == "bits" else torch.int32) for name, shape in zip(NAMES, shapes, strict=True)
    }


def _kept_tiles(mask: Tensor) -> Tensor:
    """bool [Nt, Kt]: whether a tile keeps anything."""
    (N, K), rows, columns = mask.shape, *(-(-size // TILE) for size in mask.shape)
    padded = mask.new_zeros(rows * TILE, columns * TILE)
    padded[:N, :K] = mask
    return padded.reshape(rows, TILE, columns, TILE).any(3).any(1)


def _first(grid: Tensor) -> Tensor:
    """int32 [R, C]: the columns of bool `grid` [R, C] that are True, ascending, before those that are not."""
    return torch.argsort((~grid).to(torch.uint8), dim=1, stable=True).to(torch.int32)
