"""Packing: from a quantized and pruned model, or one of its layers, to the form for inference."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from sparseq_kernels import InputError
from sparseq_kernels.formats import FLOAT_BITS, format_named, smallest
from sparseq_kernels.numerics import positive, quantize
from sparseq_kernels.torch_internals import has_values

from .attached import carry_to_packed, check_attached, copy_attached
from .embedding import QuantEmbedding
from .finite import check_finite
from .fused import fuse
from .inference_mode import outside_inference_mode
from .linear import QuantSparseLinear
from .masking import MaskedWeight
from .packed_embedding import PackedEmbedding
from .packed_linear import PackedLinear
from .packers import Stored, packer_of, packs
from .save_pretrained import attach_quantizer
from .settings import check_dtype
from .unwrap import unwrapped


@outside_inference_mode
def pack(model: nn.Module) -> nn.Module:
    """A copy of the model for inference, in eval mode, that shares nothing with it: each `QuantSparseLinear` and
    `QuantEmbedding` becomes its packed form, in the format that stores it in the fewest bytes
    (`sparseq_kernels.formats`).

    Tied weights and biases are stored once, if they are quantized and pruned alike. Hooks and attributes of the layers
    are copied, as all else is; what torch.compile, data parallelism or an average of weights has put around the model
    is left out. A BERT-like encoder runs fused where it can (`use_fused_encoder`). Raises InputError for FSDP's shards,
    for NaN or Inf in the weights, for static activations that were never calibrated, and for attachments of a layer
    that would be lost, such as accelerate's hooks.
    """
    model = unwrapped(model)
    layers = {name: m for name, m in model.named_modules() if isinstance(m, MaskedWeight) and packer_of(m)}
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
    return fuse(attach_quantizer(packed_model.eval()))


@packs(QuantSparseLinear)
def pack_linear(
    layer: QuantSparseLinear, format: str | None = None, stored: Stored | None = None, bias: Tensor | None = None
) -> PackedLinear:
    """The `PackedLinear` of a layer; arguments as of `packers.Packer`."""
    check_attached(layer, takes_mask=False)
    weight, scale = stored or pack_weight(layer, format)
    input_scale = None
    if layer.input_scale is not None:
        if not layer.calibrated:
            raise InputError("a layer with static activations has no scale yet: call sparseq.calibrate first")
        input_scale = positive(layer.input_scale.detach().to(torch.float32))
    if bias is None and layer.bias is not None:
        bias = layer.bias.detach().clone()
    packed = PackedLinear(weight, scale, bias, input_scale, layer.weight.dtype)
    packed.expand()
    carry_to_packed(layer, packed)
    return packed.eval()


@packs(QuantEmbedding)
def pack_embedding(
    layer: QuantEmbedding, format: str | None = None, stored: Stored | None = None, bias: Tensor | None = None
) -> PackedEmbedding:
    """The `PackedEmbedding` of a layer; arguments as of `packers.Packer`, and no bias."""
    check_attached(layer, takes_mask=False)
    weight, scale = stored or pack_weight(layer, format)
    packed = PackedEmbedding(weight, scale, layer.padding_idx, layer.weight.dtype)
    packed.expand()
    carry_to_packed(layer, packed)
    return packed.eval()


def pack_weight(layer: MaskedWeight, format: str | None) -> Stored:
    """(the layer's weight as stored, its scale fp32 [rows] or None for floats); `format` None takes the smallest.

    The tensors are new: a packed model shares nothing with the one it was made from. Raises InputError for a format
    that cannot hold the weight, for a weight of a dtype such as float8, and for a mask without values.
    """
    check_dtype(layer.weight.dtype, "the layer")
    bits = layer.bits or FLOAT_BITS
    weight, scale = layer.masked_weight().detach().clone(), None
    if layer.bits is not None:
        scale = layer.channel_scale().detach().to(torch.float32, copy=True)
        weight = quantize(weight, scale.unsqueeze(-1), bits)
    mask = layer.mask
    if mask is not None and not has_values(mask):
        raise InputError(
            "the layer's mask has no values (it is on the meta device, or faked), and they say how much is stored: "
            "pack the layer once its weights are there"
        )
    block = layer.pattern.block if layer.pattern.kind == "block" else (1, 1)
    if format is None:
        return smallest(weight, mask, block, bits), scale
    cls = format_named(format)
    if (why := cls.why_not(bits, mask, (weight.shape[0], weight.shape[1]), block)) is not None:
        raise InputError(f"format {format!r} {why} (the layer has bits={layer.bits} and pattern {layer.pattern})")
    return cls.from_dense(weight, bits, mask, block), scale


class _Ties:
    """Packs layers one after the other, and what they share once."""

    def __init__(self, model: nn.Module) -> None:
        others = [module for module in model.modules() if packer_of(module) is None]
        # Parameters that modules have which stay as they are, such as the bias of a language model's head.
        self._elsewhere = {id(parameter) for module in others for parameter in module._parameters.values()}
        self._weights: dict[int, list[tuple[MaskedWeight, Stored]]] = {}
        self._biases: dict[int, Tensor] = {}
        # Of what is tied to those: id of a Parameter -> its copy.
        self.parameters: dict[int, Tensor] = {}

    def pack(self, layer: MaskedWeight) -> nn.Module:
        packer = packer_of(layer)
        assert packer is not None
        return packer(layer, stored=self._stored(layer), bias=self._bias(getattr(layer, "bias", None)))

    def _stored(self, layer: MaskedWeight) -> Stored:
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


def _alike(first: MaskedWeight, second: MaskedWeight) -> bool:
    """Whether two layers with the same weight are stored alike: quantized and pruned in the same way."""
    if (first.bits, first.pattern, _norm(first)) != (second.bits, second.pattern, _norm(second)):
        return False
    if not _equal(first.mask, second.mask):
        return False
    return first.bits is None or _equal(first.channel_scale(), second.channel_scale())


def _norm(layer: MaskedWeight) -> tuple[float, float] | None:
    """(max_norm, norm_type) of an embedding that renormalizes its rows; None for other layers."""
    if not isinstance(layer, QuantEmbedding) or layer.max_norm is None:
        return None
    return layer.max_norm, layer.norm_type


def _equal(first: Tensor | None, second: Tensor | None) -> bool:
    if first is None or second is None:
        return first is second
    return first is second or torch.equal(first, second)
