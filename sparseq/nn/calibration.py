"""The scales of static activations, from batches."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from .linear import QuantSparseLinear


def calibrate(model: nn.Module, batches: Iterable[Mapping[str, Any]]) -> nn.Module:
    """Sets the scales of static activations from the largest values that `batches` (keyword arguments of the model's
    forward) bring to each layer; returns the model. Scales that were set before are forgotten."""
    layers = [m for m in model.modules() if isinstance(m, QuantSparseLinear) and m.input_scale is not None]
    modes = [m.training for m in layers]

    def observe(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        assert isinstance(layer, QuantSparseLinear)
        layer._observe(args[0] if args else kwargs["input"])

    hooks = [m.register_forward_pre_hook(observe, with_kwargs=True) for m in layers]
    with torch.no_grad():
        for layer in layers:
            layer.input_scale.zero_()  # type: ignore[union-attr]
            layer.calibrated = False
        try:
            for batch in batches:
                model(**batch)
        finally:
            for hook, layer, mode in zip(hooks, layers, modes, strict=True):
                hook.remove()
                layer.training = mode
    return model
