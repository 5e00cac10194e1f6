"""The inference layers: they hold what is stored and nothing else, and have no backward."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparseq_kernels import InputError
from sparseq_kernels.formats import (
    FLOAT_BITS,
    BlockBitmapWeight,
    DenseWeight,
    PackedWeight,
    SemiStructuredWeight,
    empty_weight,
    smallest,
    unpack_int4,
    weight_of,
)
from sparseq_kernels.layouts import FORMATS, TensorSpec
from sparseq_kernels.numerics import compute_dtype
from sparseq_kernels.reference.quantize_rows import quantize
from sparseq_kernels.untrusted import FLOAT_DTYPES, dtype_name

from . import stored as stored_layers
from .embedding import QuantEmbedding
from .masking import MaskedWeight, WeightCounts

Stored = tuple[PackedWeight, Tensor | None]


def pack_weight(layer: MaskedWeight, format: str | None) -> Stored:
    """(the layer's weight as stored, its scale fp32 [rows] or None for floats); `format` None takes the smallest.

    The tensors are new: a packed model shares nothing with the one it was made from.
    """
    bits = layer.bits or FLOAT_BITS
    weight, scale = layer.masked_weight().detach().clone(), None
    if layer.bits is not None:
        scale = layer.channel_scale().clone()
        weight = quantize(weight, scale.unsqueeze(-1), bits)
    block, mask = layer.pattern.block if layer.pattern.kind == "block" else (1, 1), layer.mask
    if format is None:
        return smallest(weight, mask, block, bits), scale
    if format == "dense":
        return DenseWeight.from_dense(weight, bits, mask), scale
    kept = mask if mask is not None else torch.ones_like(weight, dtype=torch.bool)
    if format == "bitmask":
        return BlockBitmapWeight.from_dense(weight, kept, (1, 1), bits), scale
    if format == "block_sparse" and block != (1, 1):
        return BlockBitmapWeight.from_dense(weight, kept, block, bits), scale
    if format == "semi_structured" and bits == 8:
        return SemiStructuredWeight.from_dense(weight, kept), scale
    if format == "semi_structured":
        raise InputError(f"format {format!r} holds weights of 8 bits, and this layer's have {bits}")
    why = "needs a block pattern such as '4x4'" if format == "block_sparse" else f"is not one of {', '.join(FORMATS)}"
    raise InputError(f"format {format!r} {why}, and this layer's pattern is {layer.pattern}")


class Packed(nn.Module):
    """A weight as stored, in buffers `values`, `bitmap` or `indices` (if sparse) and `scale` (if quantized).

    A sparse or 4-bit weight is expanded to one integer a weight when it is packed or loaded, and the expanded copy,
    which is not saved, is what the CPU multiplies by.
    """

    values: Tensor
    scale: Tensor | None
    _expanded: Tensor | None

    def _hold(self, weight: PackedWeight, scale: Tensor | None) -> None:
        self._layout = weight.layout()
        for name, tensor in weight.tensors().items():
            self.register_buffer(name, tensor)
        self.register_buffer("scale", scale)
        self.register_buffer("_expanded", None, persistent=False)

    def stored_weight(self) -> PackedWeight:
        """The weight's format, around this module's own buffers."""
        tensors = {name: getattr(self, name) for name in ("values", "bitmap", "indices") if hasattr(self, name)}
        return weight_of(self._layout, tensors)

    @property
    def bits(self) -> int:
        return int(self._layout["bits"])

    @property
    def format(self) -> str:
        return str(self._layout["format"])

    @property
    def is_expanded(self) -> bool:
        """Whether arithmetic runs on an expanded copy, because what is stored is not one integer or float a weight."""
        return self.format != "dense" or self.bits == 4

    @property
    def weight(self) -> Tensor:
        """The dequantized matrix, made anew each time: for inspection, not for arithmetic."""
        levels = self.levels()
        return levels if self.scale is None else levels.to(self.scale.dtype) * self.scale.unsqueeze(-1)

    def levels(self) -> Tensor:
        """One value for each weight, [rows, columns]: int8, int16 or floats, zeros where masked."""
        if not self.is_expanded:
            values: Tensor = self.values
            return values
        if self._expanded is None:
            self.expand()
        assert self._expanded is not None
        return self._expanded

    def expand(self) -> None:
        """Checks the stored weight and makes the copy that arithmetic runs on. InputError if it is inconsistent."""
        weight = self.stored_weight()
        if not weight.values.is_meta:
            weight.validate()
            if self.is_expanded:
                self._expanded = weight.to_dense()

    def weight_counts(self) -> WeightCounts:
        rows, columns = self._layout["shape"]
        return WeightCounts(rows * columns, self.stored_weight().kept(), self.bits)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        sentinel = state_dict.get(prefix + "weight")
        if isinstance(sentinel, Tensor) and not sentinel.numel():
            del state_dict[prefix + "weight"]  # `sparseq.save` writes it for readers that expect a weight
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._expanded = None
        if prefix + "values" in state_dict:
            self.expand()

    @classmethod
    def check_settings(cls, settings: object, where: str) -> None:
        """Raises InputError unless `settings`, as read from a file, are such as `settings()` gives."""
        stored_layers.check_settings(cls.__name__, settings, where)

    @classmethod
    def tensor_specs(cls, settings: dict[str, Any]) -> dict[str, TensorSpec]:
        """Every tensor in the state of the layer that these settings describe, by its name there."""
        return stored_layers.tensor_specs(cls.__name__, settings)

    @classmethod
    def _empty(cls, settings: dict[str, Any]) -> tuple[PackedWeight, Tensor | None]:
        cls.check_settings(settings, f"settings of a {cls.__name__}")
        weight = empty_weight(settings["weight"], FLOAT_DTYPES[settings["dtype"]])
        rows = settings["weight"]["shape"][0]
        return weight, None if weight.bits == FLOAT_BITS else torch.empty(rows, dtype=torch.float32)


class PackedEmbedding(Packed):
    """The inference form of a `QuantEmbedding`: indices [...] -> [..., embedding_dim]."""

    def __init__(self, weight: PackedWeight, scale: Tensor | None, padding_idx: int | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = weight.shape
        self.padding_idx = padding_idx
        self.dtype = dtype
        self._hold(weight, scale)

    @classmethod
    def from_layer(
        cls, layer: QuantEmbedding, format: str | None = None, stored: Stored | None = None
    ) -> "PackedEmbedding":
        """`stored`: the rows as packed already for a layer that this one is tied to."""
        weight, scale = stored or pack_weight(layer, format)
        packed = cls(weight, scale, layer.padding_idx, layer.weight.dtype)
        packed.expand()
        return packed.eval()

    def forward(self, input: Tensor) -> Tensor:
        if self.scale is None:
            return F.embedding(input, self.levels())
        if self.bits == 4 and self.format == "dense":
            packed: Tensor = self.values
            rows = unpack_int4(packed[input], self.embedding_dim).to(compute_dtype(self.scale))
            return (rows * self.scale[input].unsqueeze(-1)).to(self.dtype)
        return torch.ops.sparseq.int8_embedding(input, self.levels(), self.scale, self.dtype)

    def expand(self) -> None:
        # Rows of a dense 4-bit table are unpacked as they are looked up: expanding the table would double it.
        if not (self.bits == 4 and self.format == "dense"):
            super().expand()

    def levels(self) -> Tensor:
        return self.stored_weight().to_dense() if self.bits == 4 and self.format == "dense" else super().levels()

    def settings(self) -> dict[str, Any]:
        """What `from_settings` needs to make the empty layer, as JSON."""
        return {"weight": self._layout, "padding_idx": self.padding_idx, "dtype": dtype_name(self.dtype)}

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> "PackedEmbedding":
        weight, scale = cls._empty(settings)
        return cls(weight, scale, settings["padding_idx"], FLOAT_DTYPES[settings["dtype"]]).eval()

    def extra_repr(self) -> str:
        return f"{self.num_embeddings}, {self.embedding_dim}, bits={self.bits}, format={self.format}"
