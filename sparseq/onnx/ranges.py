"""The scales of activations that quantize-dequantize pairs need: those of the layers, or found from batches."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sparseq.errors import InputError
from sparseq.nn import PackedLinear
from sparseq_kernels.numerics import scale_from_max

from .replace import quantized_linears


def static_scales(packed: nn.Module, batches: Iterable[Mapping[str, Any]] | None) -> dict[str, Tensor]:
    """The scale [1] of each quantized linear layer's activations, by the layer's name.

    batches: keyword arguments of the model's forward. They set the scales of layers with dynamic activations, from the
    largest magnitude of all batches, as `sparseq.calibrate` does. Raises InputError if such layers are left without a
    scale, and for batches that give NaN or Inf.
    """
    layers = quantized_linears(packed)
    known = {name: layer.input_scale for name, layer in layers.items() if layer.input_scale is not None}
    dynamic = {name: layer for name, layer in layers.items() if name not in known}
    if not dynamic:
        return known
    if batches is None:
        raise InputError(
            f"layer {next(iter(dynamic))!r} finds the scale of its activations in each call, and form 'qdq' needs one "
            "that is known before: give batches to find it from, convert with activation='static', or export the form "
            "'integer'"
        )
    return known | {name: scale_from_max(largest, 8) for name, largest in _largest(packed, dynamic, batches).items()}


@torch.no_grad()
def _largest(
    packed: nn.Module, layers: Mapping[str, PackedLinear], batches: Iterable[Mapping[str, Any]]
) -> dict[str, Tensor]:
    """max|x| [1] of each layer's input over all batches."""
    found: dict[str, Tensor] = {}

    def observe(name: str) -> Any:
        def hook(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            x = args[0] if args else kwargs["input"]
            largest = x.detach().abs().amax().reshape(1)
            found[name] = torch.maximum(found[name], largest) if name in found else largest

        return hook

    hooks = [layer.register_forward_pre_hook(observe(name), with_kwargs=True) for name, layer in layers.items()]
    try:
        for batch in batches:
            packed(**batch)
    finally:
        for hook in hooks:
            hook.remove()
    for name in layers:
        if name not in found:
            raise InputError(
                f"the batches do not reach layer {name!r}: give one that does (an iterator is used up once)"
            )
        if not found[name].isfinite().all():
            raise InputError(f"the batches give NaN or Inf in the input of layer {name!r}: leave those out")
    return found
