"""How a weight matrix is stored for inference: the values that are kept, and which those are.

A format holds *levels*: integers of `bits` bits (int4 two to a byte, int8, int16), or floats where nothing was
quantized. Scales and biases belong to the layer. `from_dense` and `to_dense` are exact inverses for any matrix whose
dropped weights are zero.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .errors import InputError
from .layouts import FLOAT_BITS as FLOAT_BITS
from .layouts import tensor_specs
from .numerics import from_pairs, pack_int4, pack_mask, qmax, unpack_int4, unpack_mask, unpack_nibbles


@dataclass(frozen=True)
class DenseWeight:
    """Every value stored. values: [N, K] int8, int16 or float; for 4 bits uint8 [N, ceil(K / 2)].

    kept_weights: how many of them no mask removed; the others are stored as zeros.
    """

    values: Tensor
    shape: tuple[int, int]
    bits: int
    kept_weights: int
    name = "dense"

    @classmethod
    def from_dense(cls, levels: Tensor, bits: int, mask: Tensor | None = None) -> "DenseWeight":
        values = pack_int4(levels) if bits == 4 else levels.contiguous()
        kept = levels.numel() if mask is None else int(mask.sum())
        return cls(values, (levels.shape[0], levels.shape[1]), bits, kept)

    @classmethod
    def of(cls, layout: dict[str, Any], tensors: Mapping[str, Tensor]) -> "DenseWeight":
        return cls(tensors["values"], tuple(layout["shape"]), layout["bits"], layout["kept_weights"])

    def tensors(self) -> dict[str, Tensor]:
        return {"values": self.values}

    def layout(self) -> dict[str, Any]:
        return {
            "format": self.name,
            "shape": list(self.shape),
            "bits": self.bits,
            "kept_weights": self.kept_weights,
        }

    def to_dense(self) -> Tensor:
        return unpack_int4(self.values, self.shape[1]) if self.bits == 4 else self.values

    def kept(self) -> int:
        return self.kept_weights

    def validate(self) -> None:
        """Raises InputError unless the levels are in the range of their bits, and zero where nothing is kept."""
        _check_levels(self.values, self.bits, self.name)
        if self.kept_weights < self.shape[0] * self.shape[1]:
            _check_count(self.to_dense(), self.kept_weights, self.name)


@dataclass(frozen=True)
class BlockBitmapWeight:
    """Only the kept R x C blocks, and one bit a block that says which those are; 1 x 1 is the unstructured bitmask.

    bitmap: uint8 [ceil(blocks / 8)], row by row of blocks. values: the kept blocks in that order, [kept * R * C] flat,
    each block row by row; for 4 bits uint8 [ceil(kept * R * C / 2)].
    """

    values: Tensor
    bitmap: Tensor
    shape: tuple[int, int]
    block: tuple[int, int]
    kept_blocks: int
    bits: int

    @property
    def name(self) -> str:
        return "bitmask" if self.block == (1, 1) else "block_sparse"

    @classmethod
    def from_dense(cls, levels: Tensor, mask: Tensor, block: tuple[int, int], bits: int) -> "BlockBitmapWeight":
        """Keeps each block in which `mask` [N, K] keeps anything."""
        grid, keep = _blocks(levels, block), _blocks(mask, block).any(dim=1)
        values = grid[keep].flatten()
        shape = (levels.shape[0], levels.shape[1])
        packed = pack_int4(values) if bits == 4 else values
        return cls(packed, pack_mask(keep), shape, block, int(keep.sum()), bits)

    @classmethod
    def of(cls, layout: dict[str, Any], tensors: Mapping[str, Tensor]) -> "BlockBitmapWeight":
        shape, block = tuple(layout["shape"]), tuple(layout["block"])
        return cls(tensors["values"], tensors["bitmap"], shape, block, layout["kept_blocks"], layout["bits"])

    def tensors(self) -> dict[str, Tensor]:
        return {"values": self.values, "bitmap": self.bitmap}

    def layout(self) -> dict[str, Any]:
        return {
            "format": self.name,
            "shape": list(self.shape),
            "bits": self.bits,
            "block": list(self.block),
            "kept_blocks": self.kept_blocks,
        }

    def to_dense(self) -> Tensor:
        (rows, columns), (r, c) = self.shape, self.block
        values = unpack_int4(self.values, self.kept()) if self.bits == 4 else self.values
        kept = unpack_mask(self.bitmap, rows * columns // (r * c))
        # By the place of each block among those that are kept, 0 being a block of zeros: no shape depends on what the
        # tensors hold, so that vmap and traces pass through.
        blocks = torch.nn.functional.pad(values.reshape(-1, r * c), (0, 0, 1, 0))
        grid = blocks[kept.cumsum(0) * kept]
        return grid.reshape(rows // r, columns // c, r, c).transpose(1, 2).reshape(rows, columns)

    def kept(self) -> int:
        return self.kept_blocks * self.block[0] * self.block[1]

    def validate(self) -> None:
        """Raises InputError unless the bitmap marks exactly as many blocks as there are values for, and the levels are
        in the range of their bits."""
        _check_levels(self.values, self.bits, self.name)
        marked = int(unpack_mask(self.bitmap, self.bitmap.numel() * 8).sum())
        inside = int(unpack_mask(self.bitmap, self.shape[0] * self.shape[1] // (self.block[0] * self.block[1])).sum())
        if marked != self.kept_blocks or inside != marked:
            raise InputError(
                f"a {self.name} weight is inconsistent: its bitmap marks {inside} blocks inside the matrix and "
                f"{marked - inside} beyond it, where {self.kept_blocks} are stored"
            )


@dataclass(frozen=True)
class SemiStructuredWeight:
    """Two int8 values of every four columns, and where they stand: 5 bits a weight (N:M sparsity of 2:4).

    values: [N, K / 2]. indices: uint8 [N, ceil(K / 8)], four bits for four columns, the first four in the lower bits:
    the column of the first value in the lower two, that of the second, which is greater, in the upper two.
    kept_weights: how many of the values no mask removed; the others are stored as zeros.
    """

    values: Tensor
    indices: Tensor
    shape: tuple[int, int]
    kept_weights: int
    bits = 8
    name = "semi_structured"

    @classmethod
    def from_dense(cls, levels: Tensor, mask: Tensor) -> "SemiStructuredWeight":
        """InputError unless `mask` [N, K] keeps at most two of every four columns."""
        if (why := cls.why_not(mask)) is not None:
            raise InputError(f"a {cls.name} weight {why}")
        (rows, columns), keep = levels.shape, mask.unflatten(1, (-1, 4))
        # Kept columns first, in their order; where fewer than two are kept, others stand in with a zero.
        places = keep.logical_not().to(torch.uint8).sort(dim=-1, stable=True).indices[..., :2].sort(dim=-1).values
        values = (levels * mask).unflatten(1, (-1, 4)).gather(2, places).flatten(1)
        nibbles = (places[..., 0] | (places[..., 1] << 2)).to(torch.uint8)
        nibbles = torch.nn.functional.pad(nibbles, (0, nibbles.shape[1] % 2))
        indices = nibbles[:, ::2] | (nibbles[:, 1::2] << 4)
        return cls(values.contiguous(), indices.contiguous(), (rows, columns), int(mask.sum()))

    @staticmethod
    def why_not(mask: Tensor) -> str | None:
        """Why this format cannot hold what `mask` keeps; None if it can."""
        if mask.shape[1] % 4:
            return f"needs a multiple of 4 columns, not {mask.shape[1]}"
        if mask.numel() and int(mask.unflatten(1, (-1, 4)).sum(-1).max()) > 2:
            return "holds at most two of every four columns, and the mask keeps more"
        return None

    @classmethod
    def of(cls, layout: dict[str, Any], tensors: Mapping[str, Tensor]) -> "SemiStructuredWeight":
        return cls(tensors["values"], tensors["indices"], tuple(layout["shape"]), layout["kept_weights"])

    def tensors(self) -> dict[str, Tensor]:
        return {"values": self.values, "indices": self.indices}

    def layout(self) -> dict[str, Any]:
        return {
            "format": self.name,
            "shape": list(self.shape),
            "bits": self.bits,
            "kept_weights": self.kept_weights,
        }

    def to_dense(self) -> Tensor:
        return from_pairs(self.values, self.indices)

    def kept(self) -> int:
        return self.kept_weights

    def validate(self) -> None:
        """Raises InputError unless the second of every two values stands after the first, the levels are in the range
        of their bits, and no more of them than are kept are other than zero."""
        _check_levels(self.values, self.bits, self.name)
        _check_count(self.values, self.kept_weights, self.name)
        self.check_indices()

    def check_indices(self) -> None:
        """Raises InputError unless the second of every two values stands after the first."""
        nibbles = unpack_nibbles(self.indices)[:, : self.shape[1] // 4]
        if wrong := int(((nibbles & 3) >= (nibbles >> 2)).sum()):
            raise InputError(
                f"a {self.name} weight is inconsistent: in {wrong} of its fours of columns the second value does not "
                "stand after the first"
            )


PackedWeight = DenseWeight | BlockBitmapWeight | SemiStructuredWeight


def weight_of(layout: dict[str, Any], tensors: Mapping[str, Tensor]) -> PackedWeight:
    """The weight that `layout` describes, around its `tensors`."""
    kinds: dict[str, Any] = {"dense": DenseWeight, "semi_structured": SemiStructuredWeight}
    weight: PackedWeight = kinds.get(layout["format"], BlockBitmapWeight).of(layout, tensors)
    return weight


def empty_weight(layout: dict[str, Any], dtype: torch.dtype) -> PackedWeight:
    """The weight that `layout` describes, on the default device, with its tensors' contents still to be loaded.

    dtype: of the values, if they are not quantized. The layout must have passed `layouts.check_layout`.
    """
    specs = tensor_specs(layout, dtype)
    # On the default device, which decides where a module that is made belongs.
    device = torch.get_default_device()
    return weight_of(layout, {n: torch.zeros(spec.shape, dtype=spec.dtype, device=device) for n, spec in specs.items()})


def smallest(levels: Tensor, mask: Tensor | None, block: tuple[int, int], bits: int) -> PackedWeight:
    """The format that stores `levels` in the fewest bytes: dense, two of every four columns, one bit a weight, or one
    bit a block. Of equal ones the first of these."""
    dense: PackedWeight = DenseWeight.from_dense(levels, bits, mask)
    if mask is None:
        return dense
    blocks = {(1, 1), block} if levels.shape[0] % block[0] == 0 and levels.shape[1] % block[1] == 0 else {(1, 1)}
    candidates: list[PackedWeight] = [dense]
    if bits == 8 and SemiStructuredWeight.why_not(mask) is None:
        candidates.append(SemiStructuredWeight.from_dense(levels, mask))
    candidates += [BlockBitmapWeight.from_dense(levels, mask, b, bits) for b in sorted(blocks)]
    return min(candidates, key=stored_bytes)


def stored_bytes(weight: PackedWeight) -> int:
    """Bytes of the format's tensors."""
    return sum(t.numel() * t.element_size() for t in weight.tensors().values())


def _check_levels(values: Tensor, bits: int, name: str) -> None:
    """Raises InputError for a level below -qmax, which no quantizer gives: the range is symmetric."""
    if bits == FLOAT_BITS:
        return
    lowest = -qmax(bits) - 1
    parts = (values & 15, values >> 4) if bits == 4 else (values,)
    if count := sum(int((part == (lowest & 15 if bits == 4 else lowest)).sum()) for part in parts):
        raise InputError(
            f"a {name} weight is inconsistent: {count} of its levels are {lowest}, and {bits} bits hold "
            f"{lowest + 1} to {qmax(bits)}"
        )


def _check_count(levels: Tensor, kept: int, name: str) -> None:
    """Raises InputError where more levels than were kept are other than zero."""
    if (found := int(levels.count_nonzero())) > kept:
        raise InputError(
            f"a {name} weight is inconsistent: {found} of its levels are not zero, and it is said to keep {kept}"
        )


def _blocks(matrix: Tensor, block: tuple[int, int]) -> Tensor:
    """[N, K] -> [N / R * K / C, R * C], row by row of blocks."""
    (rows, columns), (r, c) = matrix.shape, block
    return matrix.reshape(rows // r, r, columns // c, c).transpose(1, 2).reshape(-1, r * c)
