"""From sparseq layers back to plain ones."""

from __future__ import annotations

import torch
from torch import nn

from sparseq_kernels import InputError

from .attached import has_call_hooks
from .embedding import QuantEmbedding
from .fused import unfuse
from .layers import named_layers
from .linear import QuantSparseLinear
from .packed import Packed
from .packed_embedding import PackedEmbedding
from .packed_linear import PackedLinear
from .save_pretrained import detach_quantizer


@torch.no_grad()
def dequantize(model: nn.Module) -> nn.Module:
    """Replaces sparseq layers by `nn.Linear` and `nn.Embedding`, in place, and returns the model.

    A packed layer's weight is its integers times their scales, which is what it computes with, up to the rounding of
    activations. A training layer's is its own floating-point weight with the mask applied, not rounded. Both keep the
    layer's dtype and are trainable where the layer was; zeros of a mask are zeros, and nothing keeps them at zero.
    Layers that share a weight share it afterwards. A model that is a single layer is returned as a new one.

    Raises InputError for a model without sparseq layers, and for hooks on a packed layer, which would be lost.
    """
    layers = dict(named_layers(model))
    if not layers:
        raise InputError("the model has no sparseq layers to dequantize")
    for name, layer in layers.items():
        if isinstance(layer, Packed) and has_call_hooks(layer):
            raise InputError(f"packed layer {name!r} has hooks, which would be lost: remove them first")
    unfuse(model)
    shared: dict[int, nn.Parameter] = {}
    made: dict[int, nn.Module] = {}
    for layer in layers.values():
        plain = made[id(layer)] = _plain(layer)
        plain.weight = shared.setdefault(_weight_of(layer), plain.weight)  # type: ignore[arg-type]
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if id(module) in made:
            if not name:
                return made[id(module)]
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, made[id(module)])
    return detach_quantizer(model)


def _weight_of(layer: nn.Module) -> int:
    """A key that layers with the same weight have in common."""
    return id(layer.values if isinstance(layer, Packed) else layer.weight)


def _plain(layer: nn.Module) -> nn.Module:
    if isinstance(layer, QuantSparseLinear):
        linear = layer.to_linear()
        linear.bias = layer.bias  # may be another module's too
        return linear
    if isinstance(layer, QuantEmbedding):
        return layer.to_embedding()
    assert isinstance(layer, PackedLinear | PackedEmbedding)
    weight = layer.weight.detach().clone()
    if isinstance(layer, PackedEmbedding):
        made: nn.Module = nn.Embedding(weight.shape[0], weight.shape[1], layer.padding_idx, _weight=weight)
    else:
        made = nn.Linear(layer.in_features, layer.out_features, layer.bias is not None, weight.device, weight.dtype)
        made.weight = nn.Parameter(weight)
        bias = layer.bias
        if bias is not None:
            made.bias = bias if isinstance(bias, nn.Parameter) else nn.Parameter(bias.detach().clone())
    return made.train(layer.training)
