"""`QuantSparseLinear`: a drop-in `nn.Linear` that trains quantized and pruned."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparseq_kernels import InputError, Pattern, masked_linear
from sparseq_kernels.dtypes import FLOAT_DTYPES
from sparseq_kernels.numerics import compute_dtype, positive, qmax, row_max, scale_from_max
from sparseq_kernels.torch_internals import has_values, tracing_state

from .attached import carry, check_attached, check_replaceable, weight_and_mask
from .inputs import check_floating, recorded
from .masking import MaskedWeight
from .packers import pack_layer
from .settings import QuantSettings, check_dtype
from .shared_input import shared_qat_linear
from .static_scale import StaticScale, readable

# Name in the state dicts of earlier releases -> name now. transformers ties and resizes whatever follows a name that it
# knows, such as `decoder.weight`, so that no name of ours begins with `weight` or `bias`.
RENAMED_STATE = {"weight_scale": "step_size"}
# An optimizer may bring a learned scale to zero and below, where a whole row would be clipped. Its range never becomes
# smaller than the row's largest weight over this.
MOST_CLIPPED = 16


class QuantSparseLinear(MaskedWeight, StaticScale, nn.Linear):
    """y = Q(x) Q(weight o mask)^T + bias, where Q quantizes to integers and back; a drop-in for `nn.Linear`.

    x [..., in_features] in fp32, fp16 or bf16 -> [..., out_features] in the same dtype, or autocast's. Up to 8 bits the
    product is one of int8 matrices, in training as in inference, so that `pack()` changes outputs by rounding only. The
    gradient is straight-through inside the clip range and zero outside (Bengio et al. 2013), LSQ's for learned scales
    (Esser et al. 2020), and zero for masked weights. Loads an `nn.Linear`'s state dict, and saves the same keys:
    `mask`, `step_size` and `input_scale` are beside them only where they are in use.

    bits: 4, 8 or 16, or None for floating point (a masked layer that is not quantized).
    activation: "dynamic" (a scale for each row) or "static" (one in all: see `calibrate`).
    scale: "max", max|w| / qmax of each output channel, or "lsq", learned.
    pattern: what its mask may look like ("unstructured", "2:4", "4x4"); masks come from `set_mask`.

    On a GPU, blocks of 64 x 64 weights that the mask drops entirely cost neither loads nor multiplications, in training
    as in evaluation. Input values that meet only such blocks, NaN included, then do not affect the output. Set masks by
    `set_mask`, which indexes their blocks.

    While `quantizing` is False the layer computes in floating point, masked: so QAT can start late.

    `step_size` (LSQ's scale of each output channel) and `input_scale` stay fp32 when the layer is cast to fp16 or bf16,
    which hold scales of 1e-5 badly; beside an fp64 weight they are fp64.
    """

    step_size: nn.Parameter | None
    multiplies = True

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        bits: int | None = 8,
        activation: str = "dynamic",
        scale: str = "max",
        pattern: str | Pattern = "unstructured",
    ) -> None:
        settings = QuantSettings(bits, activation, scale)
        check_dtype(dtype or torch.get_default_dtype(), "a QuantSparseLinear")
        super().__init__(in_features, out_features, bias, device, dtype)
        self._init_quantization(settings, pattern)

    def _init_quantization(self, settings: QuantSettings, pattern: str | Pattern) -> None:
        self.settings_ = settings
        self._init_mask(pattern)
        learned = settings.scale == "lsq" and settings.bits is not None
        self.register_parameter("step_size", self._new_step_size() if learned else None)
        self._init_input_scale()

    @classmethod
    def from_linear(cls, linear: nn.Linear, **settings: Any) -> "QuantSparseLinear":
        """The layer with the weights of `linear`: the same Parameter objects, so ties and optimizers hold; with its
        hooks and attributes, and its mask if `torch.nn.utils.prune` gave it one. InputError for what would be lost."""
        check_replaceable(linear, nn.Linear)
        quant = QuantSettings(
            *(settings.pop(k, d) for k, d in (("bits", 8), ("activation", "dynamic"), ("scale", "max")))
        )
        pattern = settings.pop("pattern", "unstructured")
        if settings:
            raise InputError(f"unknown setting {next(iter(settings))!r}: use bits, activation, scale or pattern")
        layer = cls.__new__(cls)
        nn.Module.__init__(layer)
        layer.in_features, layer.out_features = linear.in_features, linear.out_features
        weight, mask = weight_and_mask(linear)
        layer.weight, layer.bias = weight, linear.bias
        layer._init_quantization(quant, pattern)
        carry(linear, layer)
        if mask is not None:
            layer.set_mask(mask)
        return layer.train(linear.training)

    def to_linear(self) -> nn.Linear:
        """A plain `nn.Linear` with copies of this layer's masked weights, not quantized, and of what hangs on it
        (hooks, attributes, requires_grad). InputError for what would be lost."""
        check_attached(self, takes_mask=False)
        linear = nn.Linear(
            self.in_features, self.out_features, self.bias is not None, self.weight.device, self.weight.dtype
        )
        with torch.no_grad():
            linear.weight.copy_(self.masked_weight())
            if self.bias is not None:
                linear.bias.copy_(self.bias)
        for name, parameter in linear.named_parameters():
            parameter.requires_grad_(getattr(self, name).requires_grad)
        carry(self, linear, copy=True)
        return linear.train(self.training)

    def reset_parameters(self) -> None:
        super().reset_parameters()
        if getattr(self, "step_size", None) is not None:
            self.reset_weight_scale()

    def forward(self, input: Tensor) -> Tensor:
        if not isinstance(input, Tensor):
            return recorded(self, input)
        check_floating(input)
        if not self.quantizing:
            if self.mask is None:
                return F.linear(input, self.weight, self.bias)
            return masked_linear(input, self.weight, self.mask, self.bias, self.regrow, self.mask_block_index())
        return shared_qat_linear(
            input,
            self.weight,
            self.bias,
            self.mask,
            self._learned_scale(),
            self._static_scale(input),
            self.settings_.bits or 8,
            self.settings_.input_bits,
            None,
            self.regrow,
            self.mask_block_index(),
        )

    @property
    def weight_scale(self) -> nn.Parameter | None:
        """`step_size` under the name that it had in earlier releases."""
        return self.step_size

    def channel_scale(self) -> Tensor:
        """fp32 [out_features]: the scale of each output channel's integers, learned or from the maximum."""
        learned = self._learned_scale()
        return self._max_scale() if learned is None else learned.detach()

    def _learned_scale(self) -> Tensor | None:
        """The learned scales as they are used, in training and packed: positive, and none so small that it would clip
        more than a row's largest weight by `MOST_CLIPPED`; None where scales are not learned."""
        if self.step_size is None:
            return None
        scale = positive(self.step_size)
        if self.mask is not None and self._is_above_unmasked(scale.detach()):
            return scale
        return torch.maximum(scale, self._least_scale(self.masked_weight().detach(), scale.dtype))

    def _is_above_unmasked(self, scale: Tensor) -> bool:
        """Whether the scales are above what the weight without its mask would need: then they are with it. On a CPU,
        where a masked copy takes several times as long as the rows' maxima; False where nothing can be looked at."""
        weight = self.weight.detach()
        if weight.device.type != "cpu" or tracing_state() is not None:
            return False
        if not (readable(weight) and readable(scale)):
            return False
        return bool((scale > self._least_scale(weight, scale.dtype)).all())

    def _least_scale(self, weight: Tensor, dtype: torch.dtype) -> Tensor:
        return (row_max(weight) / (MOST_CLIPPED * qmax(self.settings_.bits or 8))).to(dtype)

    def _new_step_size(self) -> nn.Parameter:
        # A frozen layer stays frozen.
        return nn.Parameter(self._max_scale(), requires_grad=self.weight.requires_grad)

    def _max_scale(self) -> Tensor:
        return scale_from_max(row_max(self.masked_weight().detach()), self.settings_.bits or 8)

    @torch.no_grad()
    def reset_weight_scale(self) -> None:
        """Sets learned weight scales from the weights as they are now; does nothing where scales are not learned."""
        if self.step_size is not None:
            self.step_size.copy_(self._max_scale())

    def settings(self) -> dict[str, Any]:
        """The constructor's arguments, as JSON; `from_settings` makes the layer again, to load a state dict into."""
        shape = {"in_features": self.in_features, "out_features": self.out_features, "bias": self.bias is not None}
        return shape | self._quant_settings()

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> "QuantSparseLinear":
        """The layer that `settings()` described, with its weights still to be loaded."""
        keys = ("in_features", "out_features", "bias", "bits", "activation", "scale", "pattern")
        layer = cls(**{k: settings[k] for k in keys}, dtype=FLOAT_DTYPES[settings["dtype"]])
        layer._restore(settings)
        return layer

    def pack(self, format: str | None = None) -> nn.Module:
        """The inference layer, a `PackedLinear`, which holds only what is stored.

        format: "dense", "bitmask", "block_sparse" (block patterns) or "semi_structured" (2:4 at 8 bits), or another
        that is registered in `sparseq_kernels.formats`; None takes the smallest. Raises InputError for a format that
        cannot hold the weight, and for static activations that were never calibrated.
        """
        return pack_layer(self, format)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for old, new in RENAMED_STATE.items():
            if prefix + old in state_dict:
                state_dict[prefix + new] = state_dict.pop(prefix + old)
        missing = [name for name in ("step_size", "input_scale") if prefix + name not in state_dict]
        loading = prefix + "weight" in state_dict
        if loading:  # An nn.Linear's state has no scales: the weights' follow from them, the inputs' stays as it is.
            for name in missing:
                if (own := getattr(self, name)) is not None:
                    state_dict[prefix + name] = own.detach()
        super()._load_from_state_dict(state_dict, prefix, *args)
        if loading and "step_size" in missing:
            self.reset_weight_scale()
        for name in missing if loading else ():
            state_dict.pop(prefix + name, None)
        self._forget_reading()
        if loading:
            self._restore_precision(self._scales())

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "QuantSparseLinear":
        before = {name: tensor.data for name, tensor in self._scales().items()}
        super()._apply(fn, recurse)
        self._restore_precision(before)
        return self

    def _restore_precision(self, values: dict[str, Tensor]) -> None:
        """Gives scales the precision that arithmetic has, whatever the weight is cast to: fp16 cannot hold them."""
        for name, tensor in self._scales().items():
            wanted = compute_dtype(self.weight)
            if tensor.dtype == wanted:
                continue
            value = values[name].detach().to(tensor.device, wanted)
            if isinstance(tensor, nn.Parameter):
                tensor.data = value
            else:
                setattr(self, name, value)

    def _scales(self) -> dict[str, Tensor]:
        return {n: t for n in ("step_size", "input_scale") if (t := getattr(self, n)) is not None}

    @property
    def out_features(self) -> int:
        """Rows of the weight."""
        rows: int = self.__dict__["out_features"]
        return rows

    @out_features.setter
    def out_features(self, rows: int) -> None:
        self.__dict__["out_features"] = rows
        self._fit_rows()

    def _fit_own_rows(self) -> None:
        super()._fit_own_rows()
        step = self._parameters.get("step_size")
        if step is not None and len(step) != len(self.weight):
            rows = self._max_scale().to(step.dtype)
            kept = min(len(step), len(rows))
            rows[:kept] = step.detach()[:kept]
            step.data, step.grad = rows, None

    def extra_repr(self) -> str:
        s = self.settings_
        kept = "" if self.mask is None or not has_values(self.mask) else f", kept={self.mask.float().mean().item():.1%}"
        return (
            f"{super().extra_repr()}, bits={s.bits}, activation={s.activation}, scale={s.scale}, "
            f"pattern={self.pattern}{kept}"
        )
