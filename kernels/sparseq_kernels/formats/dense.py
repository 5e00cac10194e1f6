"""The dense format: every value stored."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..numerics import pack_int4, unpack_int4
from ..untrusted import integer
from .protocol import TensorSpec, WeightFormat, check_kept, check_range, stored_count
from .registry import register


@register
@dataclass(frozen=True)
class DenseWeight(WeightFormat):
    """Every value stored. values: [N, K] int8, int16 or float; for 4 bits uint8 [N, ceil(K / 2)].

    kept_weights: how many of them no mask removed; the others are stored as zeros.
    """

    values: Tensor
    shape: tuple[int, int]
    bits: int
    kept_weights: int

    name = "dense"
    is_sparse = False
    layout_fields = ("kept_weights",)
    tensor_names = ("values",)

    @classmethod
    def _from_dense(cls, values: Tensor, bits: int, mask: Tensor | None, block: tuple[int, int]) -> "DenseWeight":
        shape = (values.shape[0], values.shape[1])
        kept = values.numel() if mask is None else int(mask.sum())
        return cls(pack_int4(values) if bits == 4 else values.contiguous(), shape, bits, kept)

    @classmethod
    def from_tensors(cls, layout: dict[str, Any], tensors: Mapping[str, Tensor]) -> "DenseWeight":
        return cls(tensors["values"], tuple(layout["shape"]), layout["bits"], layout["kept_weights"])

    @classmethod
    def check_layout(cls, layout: dict[str, Any], shape: tuple[int, int], where: str) -> None:
        integer(layout["kept_weights"], 0, shape[0] * shape[1], f"{where}: kept_weights")

    @classmethod
    def tensor_specs(cls, layout: dict[str, Any], dtype: torch.dtype) -> dict[str, TensorSpec]:
        rows, columns = layout["shape"]
        return {"values": TensorSpec((rows, stored_count(columns, layout["bits"])), (dtype,))}

    @property
    def is_dense(self) -> bool:
        return self.bits != 4

    def to_dense(self) -> Tensor:
        return unpack_int4(self.values, self.shape[1]) if self.bits == 4 else self.values

    def kept(self) -> int:
        return self.kept_weights

    def validate(self) -> None:
        """Raises InputError unless the values are in the range of their bits, and zero where nothing is kept."""
        check_range(self)
        if self.kept_weights < self.shape[0] * self.shape[1]:
            check_kept(self, self.to_dense())
