"""`QuantEmbedding`: a drop-in `nn.Embedding` whose rows are quantized in training."""

from typing import Any

import torch
from torch import Tensor, nn

from sparseq_kernels import InputError, Pattern, fake_quant
from sparseq_kernels.dtypes import FLOAT_DTYPES
from sparseq_kernels.numerics import masked, row_max, scale_from_max

from .attached import carry, check_attached, check_replaceable, weight_and_mask
from .inputs import check_device, recorded
from .masking import MaskedWeight
from .packers import pack_layer
from .settings import QuantSettings, check_dtype


class QuantEmbedding(MaskedWeight, nn.Embedding):
    """Looks rows up and quantizes them, each with the scale max|row| / qmax; a drop-in for `nn.Embedding`.

    indices [...] -> [..., embedding_dim] in the weight's dtype. The gradient is straight-through. Scales are always
    the rows' own maxima: a learned scale would be updated only where its token occurs. bits and pattern as in
    `QuantSparseLinear`; `nn.Embedding`'s arguments, attributes and state-dict keys hold (`max_norm` and `sparse` too).
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        _weight: Tensor | None = None,
        _freeze: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        bits: int | None = 8,
        pattern: str | Pattern = "unstructured",
    ) -> None:
        settings = QuantSettings(bits)
        check_dtype(dtype or torch.get_default_dtype() if _weight is None else _weight.dtype, "a QuantEmbedding")
        super().__init__(
            num_embeddings,
            embedding_dim,
            padding_idx,
            max_norm,
            norm_type,
            scale_grad_by_freq,
            sparse,
            _weight,
            _freeze,
            device,
            dtype,
        )
        self.settings_ = settings
        self._init_mask(pattern)

    @classmethod
    def from_embedding(cls, embedding: nn.Embedding, **settings: Any) -> "QuantEmbedding":
        """The layer with the rows of `embedding`: the same Parameter object, so ties and optimizers hold; with its
        hooks and attributes, and its mask if `torch.nn.utils.prune` gave it one. InputError for what would be lost."""
        check_replaceable(embedding, nn.Embedding)
        quant, pattern = QuantSettings(settings.pop("bits", 8)), settings.pop("pattern", "unstructured")
        if settings:
            raise InputError(f"unknown setting {next(iter(settings))!r}: use bits or pattern")
        layer = cls.__new__(cls)
        nn.Module.__init__(layer)
        for name in _ARGUMENTS:
            setattr(layer, name, getattr(embedding, name))
        layer.weight, mask = weight_and_mask(embedding)
        layer.settings_ = quant
        layer._init_mask(pattern)
        carry(embedding, layer)
        if mask is not None:
            layer.set_mask(mask)
        return layer.train(embedding.training)

    def to_embedding(self) -> nn.Embedding:
        """A plain `nn.Embedding` with copies of this layer's masked rows, not quantized, and of what hangs on it
        (hooks, attributes, requires_grad). InputError for what would be lost."""
        check_attached(self, takes_mask=False)
        options = {name: getattr(self, name) for name in _ARGUMENTS}
        plain = nn.Embedding(**options, _weight=self.masked_weight().detach().clone())
        plain.weight.requires_grad_(self.weight.requires_grad)
        carry(self, plain, copy=True)
        return plain.train(self.training)

    def forward(self, input: Tensor) -> Tensor:
        if not isinstance(input, Tensor):
            return recorded(self, input)
        check_device(self, input, self.weight)
        rows = super().forward(input)
        if self.mask is not None:
            kept = rows.masked_fill(~self.mask[input], 0)
            rows = rows + (kept - rows).detach() if self.regrow else kept
        if not self.quantizing:
            return rows
        return fake_quant(rows, None, self.settings_.bits or 8)

    @property
    def num_embeddings(self) -> int:
        """Rows of the weight."""
        rows: int = self.__dict__["num_embeddings"]
        return rows

    @num_embeddings.setter
    def num_embeddings(self, rows: int) -> None:
        self.__dict__["num_embeddings"] = rows
        self._fit_rows()

    def masked_weight(self) -> Tensor:
        """The rows with exact zeros where they are masked, renormalized as `max_norm` does at look-up."""
        if self.max_norm is None:
            return super().masked_weight()
        return masked(self.weight.renorm(self.norm_type, 0, self.max_norm), self.mask)

    def channel_scale(self) -> Tensor:
        """fp32 [num_embeddings]: the scale of each row's integers."""
        return scale_from_max(row_max(self.masked_weight().detach()), self.settings_.bits or 8)

    def settings(self) -> dict[str, Any]:
        """The constructor's arguments, as JSON; `from_settings` makes the layer again, to load a state dict into."""
        return {name: getattr(self, name) for name in _ARGUMENTS} | self._quant_settings()

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> "QuantEmbedding":
        """The layer that `settings()` described, with its rows still to be loaded."""
        layer = cls(
            **{name: settings[name] for name in (*_ARGUMENTS, "bits", "pattern")},
            dtype=FLOAT_DTYPES[settings["dtype"]],
        )
        layer._restore(settings)
        return layer

    def pack(self, format: str | None = None) -> nn.Module:
        """The inference layer, a `PackedEmbedding`; formats as in `QuantSparseLinear.pack`."""
        return pack_layer(self, format)


_ARGUMENTS = (
    "num_embeddings",
    "embedding_dim",
    "padding_idx",
    "max_norm",
    "norm_type",
    "scale_grad_by_freq",
    "sparse",
)
