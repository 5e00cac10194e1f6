"""Migration of activation ranges into weights (SmoothQuant, Xiao et al. 2023), where it costs nothing at run time."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from sparseq_kernels import InputError
from sparseq_kernels.numerics import compute_dtype

from .fused.families import family_of
from .linear import QuantSparseLinear
from .masking import MaskedWeight
from .related import tied
from .selection import check_share

Pair = tuple[QuantSparseLinear, QuantSparseLinear]
"""A layer, and the layer whose inputs are weighted means of its outputs, channel by channel."""


def foldable(model: nn.Module) -> dict[str, Pair]:
    """The pairs of layers that `smooth` acts on: value and output projection of each attention.

    By the name of the output projection. Attention mixes the tokens of a channel and no channels, so that a factor of a
    value's channel is a factor of the output projection's input. Found in the encoders of transformers that
    `use_fused_encoder` knows, converted by `convert`; layers that share their weights with others are left out.
    """
    found: dict[str, Pair] = {}
    names = {id(module): name for name, module in model.named_modules()}
    for module in model.modules():
        family = family_of(type(module))
        if family is None or getattr(getattr(module, "config", None), "is_decoder", False):
            continue
        for parts in family.layers_of(module):
            value, attended = parts.value, parts.attended
            if isinstance(value, QuantSparseLinear) and isinstance(attended, QuantSparseLinear):
                alone = len(tied(value)) == len(tied(attended)) == 1
                if alone and value.out_features == attended.in_features:
                    found[names[id(attended)]] = value, attended
    return found


def smooth(model: nn.Module, batches: Iterable[Mapping[str, Any]], alpha: float = 0.5) -> nn.Module:
    """Moves a part of the ranges of attention's outputs into the weights that follow, and returns the model.

    For channel j of the output projection's input X and weight W, with s_j = max|X_j|^alpha / max|W_j|^(1 - alpha)
    (Xiao et al. 2023, equation 4), row j of the value projection and its bias are divided by s_j, and column j of W is
    multiplied by it. Outputs stay the same but for rounding, masks stay as they are, and the model has no more
    parameters or operations than before. A channel that no input or no weight reaches keeps its range.

    The inputs of other layers come from a LayerNorm, whose output is also added to the next block's, or from an
    activation function that is not linear: there the division would be an operation of its own.

    batches: keyword arguments of the model's forward; maxima are taken over all of them, in floating point. Call
    model.eval() first. alpha: 0 evens out the weights, 1 the activations. Learned weight scales of the changed layers
    are set anew from the largest weights, and static input scales become unset: call `calibrate` afterwards.

    Raises InputError for an alpha outside [0, 1], for a model without such layers, if there are no batches, and for NaN
    or Inf in the inputs of such a layer.
    """
    check_share("alpha", alpha)
    pairs = foldable(model)
    if not pairs:
        raise InputError(
            "the model has no value and output projections to smooth: they are found in converted BERT-like encoders "
            "of transformers"
        )
    ranges = _input_ranges(model, {name: attended for name, (_, attended) in pairs.items()}, batches)
    for name in pairs:
        if not ranges[name].isfinite().all():
            raise InputError(
                f"the calibration batches give NaN or Inf in the input of layer {name!r}: mend what comes before"
            )
    with torch.no_grad():
        for name, (value, attended) in pairs.items():
            _migrate(value, attended, ranges[name], alpha)
    return model


def _migrate(value: QuantSparseLinear, attended: QuantSparseLinear, largest: Tensor, alpha: float) -> None:
    weights = attended.masked_weight().abs().amax(0).to(largest.dtype)
    factor = largest.pow(alpha) / weights.pow(1 - alpha)
    reached = (largest > 0) & (weights > 0) & factor.isfinite() & (factor > 0)
    factor = torch.where(reached, factor, 1.0)
    value.weight.copy_(value.weight / factor.unsqueeze(-1))
    if value.bias is not None:
        value.bias.copy_(value.bias / factor)
    attended.weight.copy_(attended.weight * factor)
    value.reset_weight_scale()
    attended.reset_weight_scale()
    if attended.input_scale is not None:
        attended.input_scale.zero_()


def _input_ranges(
    model: nn.Module, layers: Mapping[str, QuantSparseLinear], batches: Iterable[Mapping[str, Any]]
) -> dict[str, Tensor]:
    """max|x| of each input channel of each layer, over all batches, while nothing quantizes."""
    found: dict[str, Tensor] = {}

    def observe(name: str) -> Any:
        def hook(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            x = args[0] if args else kwargs["input"]
            largest = x.detach().abs().flatten(0, -2).amax(0).to(compute_dtype(x))
            found[name] = torch.maximum(found[name], largest) if name in found else largest

        return hook

    hooks = [layer.register_forward_pre_hook(observe(name), with_kwargs=True) for name, layer in layers.items()]
    try:
        with torch.no_grad(), _floating(model):
            for batch in batches:
                model(**batch)
    finally:
        for hook in hooks:
            hook.remove()
    if len(found) < len(layers):
        raise InputError("there are no batches to smooth with: give one at least (an iterator is used up once)")
    return found


@contextmanager
def _floating(model: nn.Module) -> Iterator[None]:
    """Nothing in the model quantizes inside the block."""
    layers = [module for module in model.modules() if isinstance(module, MaskedWeight)]
    before = [layer.quantizing for layer in layers]
    try:
        for layer in layers:
            layer.quantizing = False
        yield
    finally:
        for layer, quantizing in zip(layers, before, strict=True):
            layer.quantizing = quantizing
