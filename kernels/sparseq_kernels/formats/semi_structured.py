"""The 2:4 format: two of every four columns stored, and where they stand (N:M sparsity, Mishra et al. 2021)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..numerics import check_pairs, from_pairs
from ..ops.semi_structured_int8_linear import semi_structured_int8_linear
from ..untrusted import integer
from .protocol import Operand, Operands, TensorSpec, WeightFormat, check_kept, check_range
from .registry import register


@register
@dataclass(frozen=True)
class SemiStructuredWeight(WeightFormat):
    """Two int8 values of every four columns, and where they stand: 5 bits a weight.

    values: [N, K / 2]. indices: uint8 [N, ceil(K / 8)], four bits for every four columns, the first four in the lower
    bits: the column of the first value in the lower two, that of the second, which is greater, in the upper two.
    kept_weights: how many of the values no mask removed; the others are stored as zeros.
    """

    values: Tensor
    indices: Tensor
    shape: tuple[int, int]
    kept_weights: int

    bits = 8
    name = "semi_structured"
    held_bits = (8,)
    layout_fields = ("kept_weights",)
    tensor_names = ("values", "indices")

    @classmethod
    def _why_not(cls, mask: Tensor | None, shape: tuple[int, int], block: tuple[int, int]) -> str | None:
        if shape[1] % 4:
            return f"needs a multiple of 4 columns, not {shape[1]}"
        if shape[0] * shape[1] and (mask is None or int(mask.unflatten(1, (-1, 4)).sum(-1).max()) > 2):
            return "holds at most two of every four columns, and the mask keeps more"
        return None

    @classmethod
    def _from_dense(
        cls, values: Tensor, bits: int, mask: Tensor | None, block: tuple[int, int]
    ) -> "SemiStructuredWeight":
        mask = torch.ones_like(values, dtype=torch.bool) if mask is None else mask
        (rows, columns), keep = values.shape, mask.unflatten(1, (-1, 4))
        # Kept columns first, in their order; where fewer than two are kept, others stand in with a zero.
        places = keep.logical_not().to(torch.uint8).sort(dim=-1, stable=True).indices[..., :2].sort(dim=-1).values
        pairs = (values * mask).unflatten(1, (-1, 4)).gather(2, places).flatten(1)
        nibbles = (places[..., 0] | (places[..., 1] << 2)).to(torch.uint8)
        nibbles = torch.nn.functional.pad(nibbles, (0, nibbles.shape[1] % 2))
        indices = nibbles[:, ::2] | (nibbles[:, 1::2] << 4)
        return cls(pairs.contiguous(), indices.contiguous(), (rows, columns), int(mask.sum()))

    @classmethod
    def from_tensors(cls, layout: dict[str, Any], tensors: Mapping[str, Tensor]) -> "SemiStructuredWeight":
        return cls(tensors["values"], tensors["indices"], tuple(layout["shape"]), layout["kept_weights"])

    @classmethod
    def check_layout(cls, layout: dict[str, Any], shape: tuple[int, int], where: str) -> None:
        rows, columns = shape
        if columns % 4:
            raise InputError(f"{where}: shape has {columns} columns, and a {cls.name} weight needs a multiple of 4")
        integer(layout["kept_weights"], 0, rows * columns // 2, f"{where}: kept_weights")

    @classmethod
    def tensor_specs(cls, layout: dict[str, Any], dtype: torch.dtype) -> dict[str, TensorSpec]:
        rows, columns = layout["shape"]
        return {
            "values": TensorSpec((rows, columns // 2), (torch.int8,)),
            "indices": TensorSpec((rows, -(-columns // 8)), (torch.uint8,)),
        }

    def to_dense(self) -> Tensor:
        return from_pairs(self.values, self.indices)

    def kept(self) -> int:
        return self.kept_weights

    def validate(self) -> None:
        """Raises InputError unless the second of every two values stands after the first, the values are in the range
        of their bits, and no more of them than are kept are other than zero."""
        check_range(self)
        check_kept(self, self.values)
        check_pairs(self.indices, self.shape[1], f"a {self.name} weight is inconsistent")

    def operands(self) -> Operands:
        return Operands(semi_structured_int8_linear, (Operand(self.values, "values"), Operand(self.indices, "indices")))
