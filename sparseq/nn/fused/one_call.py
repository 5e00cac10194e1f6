"""The layers of an encoder in one call of native code, on a CPU."""

import torch
from torch import Tensor

from sparseq_kernels import InputError, backend, instruction_set
from sparseq_kernels.cpu.encoder import NativeEncoder, is_wanted
from sparseq_kernels.encoder import EncoderLayer

from .weights import EncoderWeights, LayerWeights


def encode_in_one_call(
    weights: EncoderWeights, hidden: Tensor, real: Tensor | None, *, every: bool
) -> list[Tensor] | None:
    """As `encoder.encode`, without a position bias; None where native code cannot run it or would be slower.

    Only real tokens are computed, so it is not for sequences whose first token is padding, which a head may read.
    """
    batch, length, features = hidden.shape
    if why_not(weights) is not None or (real is not None and not bool(real[:, 0].all())):
        return None
    lengths = [length] * batch if real is None else real.sum(1).tolist()
    if not is_wanted(sum(lengths)):
        return None
    native = _native(weights)
    if isinstance(native, str):
        return None
    rows = None if real is None else real.flatten().nonzero().flatten()
    x = hidden.reshape(batch * length, features)
    x = x if rows is None else x.index_select(0, rows)
    states = x.new_empty(len(weights.layers), *x.shape) if every else None
    last = native(x, lengths, states)

    def whole(found: Tensor) -> Tensor:
        if rows is not None:
            found = found.new_zeros(batch * length, features).index_copy_(0, rows, found)
        return found.view(batch, length, features)

    return [whole(last)] if states is None else [hidden, *map(whole, states)]


def why_not(weights: EncoderWeights) -> str | None:
    """Why these layers are not run in one call here; None if they are."""
    if weights.device.type != "cpu" or weights.dtype is not torch.float32:
        return "they are not in fp32 on a CPU"
    if backend() != "native":
        return "the backend is not 'native'"
    if any(len(layer.projections) > 1 for layer in weights.layers):
        return "queries, keys and values quantize their input by different scales"
    return None


def _native(weights: EncoderWeights) -> NativeEncoder | str:
    """The layers as native code of the instruction set in use has them; why it cannot have them, if it cannot."""
    name = instruction_set()
    if name not in weights.native:
        with torch.inference_mode(False), torch.no_grad():
            try:
                weights.native[name] = NativeEncoder([_layer(layer) for layer in weights.layers], weights.heads)
            except InputError as error:
                weights.native[name] = str(error)
    return weights.native[name]


def _layer(layer: LayerWeights) -> EncoderLayer:
    (qkv,) = layer.projections
    return EncoderLayer(qkv, layer.attended, layer.attended_norm, layer.intermediate, layer.output, layer.output_norm)
