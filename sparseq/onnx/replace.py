"""From a model with sparseq's layers to one that torch exports: packed, and then with ONNX's operators."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sparseq.errors import InputError
from sparseq.nn import MaskedWeight, Packed, PackedEmbedding, PackedLinear, check_finite, pack, use_fused_encoder
from sparseq.nn.attached import has_call_hooks
from sparseq.nn.unwrap import unwrapped
from sparseq_kernels.formats import FLOAT_BITS

from .layers import IntegerEmbedding, IntegerLinear, QdqLinear

# The forms that linear layers are exported in.
FORMS = ("integer", "qdq")


def packed_copy(model: nn.Module) -> nn.Module:
    """A packed copy of the model on the CPU, in eval mode, whose encoders run layer by layer.

    Raises InputError for what ONNX cannot hold: 16-bit linear layers, tensors that are not fp32, and hooks on sparseq's
    layers; for models without sparseq's layers; and like `sparseq.pack`.
    """
    model = unwrapped(model)
    if any(isinstance(module, MaskedWeight) for module in model.modules()):
        model = pack(model)
    else:
        check_finite(model)
        model = copy.deepcopy(model)
    layers = {name: module for name, module in model.named_modules() if isinstance(module, Packed)}
    if not layers:
        raise InputError("the model has no layers of sparseq's to export: call sparseq.convert first")
    for name, layer in layers.items():
        _check(name, layer)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise _not_fp32(name, tensor.dtype)
    return _with_plain_attention(use_fused_encoder(model.cpu().eval(), False))


def _with_plain_attention(model: nn.Module) -> nn.Module:
    """With attention written out, where it is torch's fused one: of that the exporter makes further passes over the
    scores, which keep sequences without a real token from being NaN, and which take time in ONNX Runtime."""
    for part in model.modules():
        known: Any = part
        if getattr(getattr(part, "config", None), "_attn_implementation", None) == "sdpa":
            known.set_attn_implementation("eager")
    return model


def _check(name: str, layer: Packed) -> None:
    if layer.dtype != torch.float32:
        raise _not_fp32(f"layer {name!r}", layer.dtype)
    if isinstance(layer, PackedLinear) and layer.bits == 16:
        raise InputError(
            f"layer {name!r} has 16 bits, and ONNX has no product of 16-bit integers: convert with bits=8 or bits=4"
        )
    if has_call_hooks(layer):
        raise InputError(f"layer {name!r} has a hook, which would be lost: remove it before the export")


def _not_fp32(what: str, dtype: torch.dtype) -> InputError:
    return InputError(f"{what} is {str(dtype).removeprefix('torch.')}, and models are exported in fp32: call .float()")


def quantized_linears(packed: nn.Module) -> dict[str, PackedLinear]:
    """The linear layers that are exported as products of integers, by name."""
    return {n: m for n, m in packed.named_modules() if isinstance(m, PackedLinear) and m.bits != FLOAT_BITS}


def replaced(packed: nn.Module, form: str, input_scales: Mapping[str, Tensor]) -> nn.Module:
    """A copy of a packed model in which modules of `layers` and plain ones have taken the place of packed layers.

    input_scales: for form "qdq", the scale of each linear layer's activations, [1], by name.
    """
    memo: dict[int, nn.Module] = {}
    for name, layer in packed.named_modules():
        if isinstance(layer, PackedLinear):
            if layer.bits == FLOAT_BITS:
                memo[id(layer)] = _plain_linear(layer)
            else:
                memo[id(layer)] = IntegerLinear(layer) if form == "integer" else QdqLinear(layer, input_scales[name])
        elif isinstance(layer, PackedEmbedding):
            memo[id(layer)] = _plain_embedding(layer) if layer.bits == FLOAT_BITS else IntegerEmbedding(layer)
    return copy.deepcopy(packed, memo)


def _plain_linear(layer: PackedLinear) -> nn.Linear:
    plain = nn.Linear(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
    plain.weight = nn.Parameter(layer.weight.detach().clone())
    if layer.bias is not None:
        plain.bias = nn.Parameter(layer.bias.detach().clone())
    return plain


def _plain_embedding(layer: PackedEmbedding) -> nn.Embedding:
    return nn.Embedding.from_pretrained(layer.weight.detach().clone())
