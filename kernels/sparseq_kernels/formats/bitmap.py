"""The formats with a bitmap: one bit a weight (`bitmask`) or a block of weights (`block_sparse`), and kept values."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..numerics import chunk_offsets, pack_int4, pack_mask, unpack_int4, unpack_mask
from ..ops.bitmask_int8_linear import bitmask_int8_linear
from ..ops.block_sparse_int8_linear import SIDES, block_sparse_int8_linear
from ..untrusted import integer, pair
from .protocol import (
    MOST_ROWS,
    MOST_WEIGHTS,
    Operand,
    Operands,
    TensorSpec,
    WeightFormat,
    check_range,
    stored_count,
)
from .registry import register


@dataclass(frozen=True)
class BitmapWeight(WeightFormat):
    """Only the kept R x C blocks, and one bit a block that says which those are.

    bitmap: uint8 [ceil(blocks / 8)], row by row of blocks. values: the kept blocks in that order, [kept * R * C] flat,
    each block row by row; for 4 bits uint8 [ceil(kept * R * C / 2)].
    """

    values: Tensor
    bitmap: Tensor
    shape: tuple[int, int]
    block: tuple[int, int]
    kept_blocks: int
    bits: int

    layout_fields = ("block", "kept_blocks")
    tensor_names = ("values", "bitmap")

    @classmethod
    def _from_dense(cls, values: Tensor, bits: int, mask: Tensor | None, block: tuple[int, int]) -> "BitmapWeight":
        """Keeps each block in which `mask` [N, K] keeps anything."""
        mask = torch.ones_like(values, dtype=torch.bool) if mask is None else mask
        grid, keep = _blocks(values, block), _blocks(mask, block).any(dim=1)
        kept = grid[keep].flatten()
        shape = (values.shape[0], values.shape[1])
        return cls(pack_int4(kept) if bits == 4 else kept, pack_mask(keep), shape, block, int(keep.sum()), bits)

    @classmethod
    def from_tensors(cls, layout: dict[str, Any], tensors: Mapping[str, Tensor]) -> "BitmapWeight":
        shape, block = tuple(layout["shape"]), tuple(layout["block"])
        return cls(tensors["values"], tensors["bitmap"], shape, block, layout["kept_blocks"], layout["bits"])

    @classmethod
    def check_layout(cls, layout: dict[str, Any], shape: tuple[int, int], where: str) -> None:
        (rows, columns), (r, c) = shape, pair(layout["block"], 1, MOST_ROWS, f"{where}: block")
        if ((r, c) == (1, 1)) != (cls is BitmaskWeight):
            raise InputError(f"{where}: block is {r} x {c}, and only that of a bitmask weight is 1 x 1")
        if rows % r or columns % c or r * c > MOST_WEIGHTS:
            raise InputError(f"{where}: blocks of {r} x {c} do not divide a weight of {rows} x {columns}")
        integer(layout["kept_blocks"], 0, rows * columns // (r * c), f"{where}: kept_blocks")

    @classmethod
    def tensor_specs(cls, layout: dict[str, Any], dtype: torch.dtype) -> dict[str, TensorSpec]:
        (rows, columns), (r, c) = layout["shape"], layout["block"]
        count = stored_count(layout["kept_blocks"] * r * c, layout["bits"])
        return {
            "values": TensorSpec((count,), (dtype,)),
            "bitmap": TensorSpec((-(-(rows * columns // (r * c)) // 8),), (torch.uint8,)),
        }

    def to_dense(self) -> Tensor:
        (rows, columns), (r, c) = self.shape, self.block
        values = unpack_int4(self.values, self.kept()) if self.bits == 4 else self.values
        kept = self._kept_grid().flatten()
        # By the place of each block among those that are kept, 0 being a block of zeros: no shape depends on what the
        # tensors hold, so that vmap and traces pass through.
        blocks = torch.nn.functional.pad(values.reshape(-1, r * c), (0, 0, 1, 0))
        grid = blocks[kept.cumsum(0) * kept]
        return grid.reshape(rows // r, columns // c, r, c).transpose(1, 2).reshape(rows, columns)

    def kept(self) -> int:
        return self.kept_blocks * self.block[0] * self.block[1]

    def validate(self) -> None:
        """Raises InputError unless the bitmap marks exactly as many blocks as there are values for, and the values are
        in the range of their bits."""
        check_range(self)
        marked = int(unpack_mask(self.bitmap, self.bitmap.numel() * 8).sum())
        inside = int(self._kept_grid().sum())
        if marked != self.kept_blocks or inside != marked:
            raise InputError(
                f"a {self.name} weight is inconsistent: its bitmap marks {inside} blocks inside the matrix and "
                f"{marked - inside} beyond it, where {self.kept_blocks} are stored"
            )

    def _kept_grid(self) -> Tensor:
        """bool [N / R, K / C]: which blocks are kept."""
        (rows, columns), (r, c) = self.shape, self.block
        return unpack_mask(self.bitmap, rows * columns // (r * c)).reshape(rows // r, columns // c)


@register
@dataclass(frozen=True)
class BitmaskWeight(BitmapWeight):
    """Only the kept weights, and one bit a weight: blocks of 1 x 1, whatever the mask's pattern."""

    name = "bitmask"

    @classmethod
    def _from_dense(cls, values: Tensor, bits: int, mask: Tensor | None, block: tuple[int, int]) -> "BitmapWeight":
        return super()._from_dense(values, bits, mask, (1, 1))

    def operands(self) -> Operands | None:
        """values [kept]; bits uint8 [N, ceil(K / 8)], each row's own; offsets int32 [N, ceil(K / 256)], where the
        values of each 256 columns begin."""
        if self.bits != 8:
            return None
        kept, (rows, columns) = self._kept_grid(), self.shape
        shared = columns % 8 == 0  # Then no byte of the bitmap belongs to two rows.
        bits = Operand(self.bitmap.reshape(rows, columns // 8), "bitmap") if shared else Operand(pack_mask(kept))
        return Operands(bitmask_int8_linear, (Operand(self.values, "values"), bits, Operand(chunk_offsets(kept))))


@register
@dataclass(frozen=True)
class BlockSparseWeight(BitmapWeight):
    """Only the kept blocks of a block pattern, and one bit a block."""

    name = "block_sparse"

    @classmethod
    def _why_not(cls, mask: Tensor | None, shape: tuple[int, int], block: tuple[int, int]) -> str | None:
        (rows, columns), (r, c) = shape, block
        if (r, c) == (1, 1):
            return "needs a block pattern such as '4x4'"
        if rows % r or columns % c:
            return f"needs a multiple of {r} rows and {c} columns, not {rows} x {columns}"
        return None

    def operands(self) -> Operands | None:
        """values [blocks, R, C], row by row of blocks; block_columns [blocks], the column of blocks of each; offsets
        [N / R + 1], where each row of blocks begins; order [N / R], the rows of blocks by descending length. The latter
        three are int32. None for blocks of other sides than SIDES."""
        if self.bits != 8 or any(side not in SIDES for side in self.block):
            return None
        kept = self._kept_grid()
        counts = kept.sum(1)
        offsets = torch.nn.functional.pad(counts.cumsum(0), (1, 0))
        order = counts.argsort(descending=True, stable=True)
        derived = (Operand(t.to(torch.int32)) for t in (kept.nonzero()[:, 1], offsets, order))
        return Operands(block_sparse_int8_linear, (Operand(self.values.reshape(-1, *self.block), "values"), *derived))


def _blocks(matrix: Tensor, block: tuple[int, int]) -> Tensor:
    """[N, K] -> [N / R * K / C, R * C], row by row of blocks."""
    (rows, columns), (r, c) = matrix.shape, block
    return matrix.reshape(rows // r, r, columns // c, c).transpose(1, 2).reshape(-1, r * c)
