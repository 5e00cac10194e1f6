"""From a quantized and pruned model to the packed one."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from sparseq_kernels import InputError

from .attached import check_attached, copy_attached
from .embedding import QuantEmbedding
from .finite import check_finite
from .linear import QuantSparseLinear
from .pack_weight import Stored, pack_weight
from .packed_embedding import PackedEmbedding
from .packed_linear import PackedLinear
from .save_pretrained import refuse_save_pretrained
from .unwrap import unwrapped

Trained = QuantSparseLinear | QuantEmbedding


def pack(model: nn.Module) -> nn.Module:
    """A copy of the model for inference, in eval mode, that shares nothing with it: each `QuantSparseLinear` and
    `QuantEmbedding` becomes its packed form, in the format that stores it in the fewest bytes
    (`sparseq_kernels.layouts.FORMATS`).

    Tied weights and biases are stored once, if they are quantized and pruned alike. Hooks and attributes of the layers
    are copied, as all else is; what torch.compile, data parallelism or an average of weights has put around the model
    is left out. Raises InputError for FSDP's shards, for NaN or Inf in the weights, for static activations that were
    never calibrated, and for what hangs on a layer and would be lost, such as accelerate's hooks.
    """
    model = unwrapped(model)
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, Trained)}
    for name, layer in layers.items():
        check_attached(layer, name, takes_mask=False, otherwise="swap it by hand")
    check_finite(model)
    ties = _Ties(model)
    # Packed layers take the place of the training ones while copying, so that the big weights are not copied first.
    made = {}
    for name, layer in layers.items():
        try:
            made[name] = ties.pack(layer)
        except InputError as error:
            raise InputError(f"layer {name!r} cannot be packed: {error}") from error
    memo: dict[int, Any] = {id(layers[name]): packed for name, packed in made.items()} | ties.parameters
    packed_model = copy.deepcopy(model, memo)
    for name, packed in made.items():
        copy_attached(layers[name], packed, memo)
    return refuse_save_pretrained(packed_model.eval())


class _Ties:
    """Packs layers one after the other, and what they share once."""

    def __init__(self, model: nn.Module) -> None:
        others = [module for module in model.modules() if not isinstance(module, Trained)]
        # Parameters that modules have which stay as they are, such as the bias of a language model's head.
        self._elsewhere = {id(parameter) for module in others for parameter in module._parameters.values()}
        self._weights: dict[int, list[tuple[Trained, Stored]]] = {}
        self._biases: dict[int, Tensor] = {}
        # Of what is tied to those: id of a Parameter -> its copy.
        self.parameters: dict[int, Tensor] = {}

    def pack(self, layer: Trained) -> PackedLinear | PackedEmbedding:
        if isinstance(layer, QuantEmbedding):
            return PackedEmbedding.from_layer(layer, stored=self._stored(layer))
        return PackedLinear.from_layer(layer, stored=self._stored(layer), bias=self._bias(layer.bias))

    def _stored(self, layer: Trained) -> Stored:
        known = self._weights.setdefault(id(layer.weight), [])
        for other, stored in known:
            if _alike(layer, other):
                return stored
        known.append((layer, pack_weight(layer, None)))
        return known[-1][1]

    def _bias(self, bias: Tensor | None) -> Tensor | None:
        if bias is None:
            return None
        if id(bias) not in self._biases:
            copied: Tensor = bias.detach().clone()
            if id(bias) in self._elsewhere:
                copied = self.parameters[id(bias)] = nn.Parameter(copied, bias.requires_grad)
            self._biases[id(bias)] = copied
        return self._biases[id(bias)]


def _alike(first: Trained, second: Trained) -> bool:
    """Whether two layers with the same weight are stored alike: quantized and pruned in the same way."""
    if (first.bits, first.pattern, _norm(first)) != (second.bits, second.pattern, _norm(second)):
        return False
    if not _equal(first.mask, second.mask):
        return False
    return first.bits is None or _equal(first.channel_scale(), second.channel_scale())


def _norm(layer: Trained) -> tuple[float, float] | None:
    """To what an embedding's rows are renormalized, and by which norm."""
    if isinstance(layer, QuantSparseLinear) or layer.max_norm is None:
        return None
    return layer.max_norm, layer.norm_type


def _equal(first: Tensor | None, second: Tensor | None) -> bool:
    if first is None or second is None:
        return first is second
    return first is second or torch.equal(first, second)
