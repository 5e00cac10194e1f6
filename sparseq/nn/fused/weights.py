"""What a fused encoder multiplies by: tensors and numbers of each layer, read from a packed model's modules.

The reading shares the layers' own tensors, but for those of queries, keys and values, which are stacked into one matrix
where one product can give all three.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparseq_kernels.cpu.encoder import NativeEncoder
from sparseq_kernels.encoder import EncoderLinear, EncoderNorm

from ..packed_linear import PackedLinear
from .families import LayerParts
from .reading import UnfitError


@dataclass(frozen=True)
class LayerWeights:
    """One layer. projections: one product whose rows are those of query, key and value, [3H, H], or three of [H, H].

    intermediate: with the activation "gelu", "gelu_tanh" or "relu".
    """

    projections: tuple[EncoderLinear, ...]
    attended: EncoderLinear
    attended_norm: EncoderNorm
    intermediate: EncoderLinear
    output: EncoderLinear
    output_norm: EncoderNorm


@dataclass(frozen=True)
class EncoderWeights:
    """All layers of an encoder, on one device; dtype: of what flows between them. native: what native code of each
    instruction set has made of them, or why it cannot."""

    layers: tuple[LayerWeights, ...]
    heads: int
    head_size: int
    dtype: torch.dtype
    device: torch.device
    native: dict[str, NativeEncoder | str] = field(default_factory=dict, compare=False, repr=False)


# The activations' names in `int8_linear`, by class, and by function for configurations that name none.
_MODULES = {
    "GELUActivation": "gelu",
    "NewGELUActivation": "gelu_tanh",
    "FastGELUActivation": "gelu_tanh",
    "GELUTanh": "gelu_tanh",
    "ReLU": "relu",
}
_FUNCTIONS: dict[Any, str] = {F.gelu: "gelu", F.relu: "relu", torch.relu: "relu"}


def read_weights(layers: list[LayerParts]) -> EncoderWeights:
    """The weights of these layers. UnfitError where they cannot run fused."""
    if not layers:
        raise UnfitError("it has no layers")
    # Not in inference mode, whose tensors could not be told from changed ones later.
    with torch.inference_mode(False), torch.no_grad():
        read = tuple(_layer(f"layer {number}", parts) for number, parts in enumerate(layers))
    if len({(parts.heads, parts.head_size) for parts in layers}) > 1:
        raise UnfitError("its layers have different numbers of heads")
    norms = [norm for layer in read for norm in (layer.attended_norm, layer.output_norm)]
    dtypes, devices = {norm.weight.dtype for norm in norms}, {norm.weight.device for norm in norms}
    devices |= {product.weight.device for layer in read for product in _products(layer)}
    if len(dtypes) > 1 or len(devices) > 1:
        raise UnfitError("its layers are of several dtypes or on several devices")
    (dtype,), (device,) = dtypes, devices
    if device.type not in ("cpu", "cuda"):
        raise UnfitError(f"it is on {device}, and not on a CPU or an NVIDIA or AMD GPU")
    if dtype != torch.float32 and (device.type == "cpu" or dtype not in (torch.float16, torch.bfloat16)):
        raise UnfitError(f"it computes in {dtype}, which on {device.type} is done layer by layer")
    return EncoderWeights(read, layers[0].heads, layers[0].head_size, dtype, device)


def _products(layer: LayerWeights) -> tuple[EncoderLinear, ...]:
    return (*layer.projections, layer.attended, layer.intermediate, layer.output)


def _layer(where: str, parts: LayerParts) -> LayerWeights:
    width = parts.heads * parts.head_size
    three = tuple(product_of(f"{where}: {name}", getattr(parts, name)) for name in ("query", "key", "value"))
    if any(one.weight.shape[0] != width for one in three):
        raise UnfitError(f"{where}: its query, key or value does not give {parts.heads} heads of {parts.head_size}")
    return LayerWeights(
        _stacked(three),
        product_of(f"{where}: the attention's output", parts.attended),
        norm_of(f"{where}: the attention's LayerNorm", parts.attended_norm),
        product_of(f"{where}: the intermediate layer", parts.intermediate, _activation(where, parts.activation)),
        product_of(f"{where}: the output", parts.output),
        norm_of(f"{where}: the output's LayerNorm", parts.output_norm),
    )


def product_of(where: str, layer: nn.Module, activation: str = "none") -> EncoderLinear:
    """A layer's product. UnfitError where it has no fused form."""
    if type(layer) is not PackedLinear:
        raise UnfitError(f"{where} is of the class {type(layer).__name__}, not a PackedLinear")
    if layer.bits > 8:
        raise UnfitError(f"{where} has {layer.bits} bits, and fused products are of up to 8")
    if layer._op is not None:
        raise UnfitError(f"{where} is multiplied by a sparse kernel (sparseq.nn.use_sparse_kernels)")
    assert layer.scale is not None  # as for every weight of up to 8 bits
    found = EncoderLinear(layer.quantized_values(), layer.scale, layer.bias, layer.input_scale, activation)
    for tensor in (found.weight, found.weight_scale, found.bias, found.input_scale):
        if tensor is not None and type(tensor) not in (Tensor, nn.Parameter):
            raise UnfitError(f"{where} holds a tensor of the class {type(tensor).__name__}")
    return found


def norm_of(where: str, layer: nn.Module) -> EncoderNorm:
    """The LayerNorm of a module. UnfitError for another one."""
    if type(layer) is not nn.LayerNorm:
        raise UnfitError(f"{where} is of the class {type(layer).__name__}, not an nn.LayerNorm")
    if len(layer.normalized_shape) != 1 or layer.weight is None or layer.bias is None:
        raise UnfitError(f"{where} has no weight or no bias")
    return EncoderNorm(layer.weight.detach(), layer.bias.detach(), layer.eps)


def _activation(where: str, activation: Callable[[Tensor], Tensor]) -> str:
    kind = type(activation)
    if kind.__module__.startswith(("torch.nn.", "transformers.")) and kind.__name__ in _MODULES:
        return _MODULES[kind.__name__]
    found = _FUNCTIONS.get(activation) if callable(activation) and not isinstance(activation, nn.Module) else None
    if found is None:
        name = getattr(activation, "__name__", kind.__name__)
        raise UnfitError(f"{where}: the activation {name} has no fused form")
    return found


def _stacked(three: tuple[EncoderLinear, ...]) -> tuple[EncoderLinear, ...]:
    """One product for all three, if they quantize their common input alike."""
    statics = [one.input_scale for one in three]
    first = statics[0]
    alike = all(scale is None for scale in statics) or (
        first is not None and all(scale is not None and torch.equal(scale, first) for scale in statics)
    )
    if not alike or len({one.weight.device for one in three}) > 1:
        return three
    bias = None
    if any(one.bias is not None for one in three):
        bias = torch.cat([torch.zeros_like(one.weight_scale) if one.bias is None else one.bias for one in three])
    weight, scale = torch.cat([one.weight for one in three]), torch.cat([one.weight_scale for one in three])
    return (EncoderLinear(weight, scale, bias, first),)
