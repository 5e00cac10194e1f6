"""The packed embedding, and how it looks rows up."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sparseq_kernels import InputError
from sparseq_kernels.dtypes import dtype_name
from sparseq_kernels.errors import InputIndexError
from sparseq_kernels.formats import WeightFormat
from sparseq_kernels.numerics import unpack_int4

from .inputs import check_device, recorded
from .packed import Packed


class PackedEmbedding(Packed):
    """The inference form of a `QuantEmbedding`: indices [...] -> [..., embedding_dim]."""

    def __init__(self, weight: WeightFormat, scale: Tensor | None, padding_idx: int | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = weight.shape
        self.padding_idx = padding_idx
        self._hold(weight, scale, dtype)

    def forward(self, input: Tensor) -> Tensor:
        if not isinstance(input, Tensor):
            return recorded(self, input)
        indices = self._indices(input)
        if self.scale is not None and not self.is_expanded_by_row:
            embedded: Tensor = torch.ops.sparseq.int8_embedding(
                indices, self.quantized_values(), self.scale, self.dtype
            )
            return embedded
        check_device(self, indices, self.values)
        try:
            if self.scale is None:
                return F.embedding(indices, self.quantized_values())
            rows = unpack_int4(F.embedding(indices, self.values), self.embedding_dim).to(self.scale.dtype)
            return (rows * F.embedding(indices, self.scale.unsqueeze(-1))).to(self.dtype)
        except IndexError as error:
            raise InputIndexError(
                f"an index is outside [0, {self.num_embeddings}), the rows of the embedding"
            ) from error

    @staticmethod
    def _indices(input: Tensor) -> Tensor:
        """The indices as torch looks them up. As an index of its own uint8 would be a mask."""
        if input.is_floating_point() or input.is_complex() or input.dtype == torch.bool:
            raise InputError(f"an embedding looks up integers, not {input.dtype}")
        return input if input.dtype in (torch.int64, torch.int32) else input.long()

    @property
    def is_expanded_by_row(self) -> bool:
        """Whether rows are unpacked as they are looked up: expanding a dense 4-bit table would double it."""
        return self.bits == 4 and self.format == "dense"

    @property
    def is_expanded(self) -> bool:
        return super().is_expanded and not self.is_expanded_by_row

    def quantized_values(self) -> Tensor:
        return self._expand_now() if self.is_expanded_by_row else super().quantized_values()

    def looked_up_values(self) -> Tensor:
        """What rows are looked up in: `quantized_values`, or two to a byte, uint8, where rows are unpacked."""
        return self._sources()[0] if self.is_expanded_by_row else self.quantized_values()

    def settings(self) -> dict[str, Any]:
        """What `from_settings` needs to make the empty layer, as JSON."""
        return {"weight": self._layout, "padding_idx": self.padding_idx, "dtype": dtype_name(self.dtype)}

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> "PackedEmbedding":
        weight, scale, dtype = cls._empty(settings)
        return cls(weight, scale, settings["padding_idx"], dtype).eval()

    def extra_repr(self) -> str:
        return f"{self.num_embeddings}, {self.embedding_dim}, bits={self.bits}, format={self.format}"
