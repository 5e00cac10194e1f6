"""The layers of an encoder in one call of native code, on a CPU."""

import torch
from torch import Tensor

from sparseq_kernels import InputError, instruction_set
from sparseq_kernels.backends import in_use
from sparseq_kernels.cpu import native
from sparseq_kernels.cpu.encoder import NativeEncoder, why_no_bf16_attention
from sparseq_kernels.cpu.native_weight import is_wanted, why_not_wanted
from sparseq_kernels.cpu.tokens import Tokens
from sparseq_kernels.encoder import EncoderLayer

from .embeddings import Entry
from .weights import EncoderWeights, LayerWeights


def encode_in_one_call(
    weights: EncoderWeights, entry: Entry, mask: Tensor | None, *, every: bool, bf16_attention: bool
) -> list[Tensor] | None:
    """As `encoder.encode`, without a position bias, where native code computes; None where it cannot run these layers,
    or would be slower.

    Only tokens that the mask keeps are computed, so it is not for sequences whose first token is padding, which a head
    may read.
    """
    tokens = Tokens.of(mask, *entry.shape)
    if tokens is None or not is_wanted(tokens.count):
        return None
    encoder = _native(weights)
    if isinstance(encoder, str):
        return None
    # The instruction set may have been changed since that was asked for.
    bf16_attention = bf16_attention and why_no_bf16_attention(encoder.library) is None
    x = entry.rows(tokens)
    if not every:
        encoder.encode_(x, tokens, None, bf16_attention)
        return [_whole(tokens, x)]
    first = x[: tokens.count].clone()
    states = x.new_empty(len(weights.layers), *first.shape)
    encoder.encode_(x, tokens, states, bf16_attention)
    return [_whole(tokens, one) for one in (first, *states)]


def why_not(weights: EncoderWeights) -> str | None:
    """Why native code does not compute with these weights here; None if it does."""
    if weights.device.type != "cpu" or weights.dtype is not torch.float32:
        return "it is not in fp32 on a CPU"
    if (name := in_use("cpu")) == "native":
        return None
    return native.why_not() or f"the backend is {name!r}, not 'native'"


def why_not_layers(weights: EncoderWeights) -> str | None:
    """Why native code does not run these layers here, though it computes; None if it does."""
    if (reason := why_not_wanted(1)) is not None:
        return reason
    found = _native(weights)
    return found if isinstance(found, str) else None


def why_not_tokens(mask: Tensor | None, batch: int, length: int) -> str | None:
    """Why a batch with this mask, [batch, length] or None, is not run in one call; None if it is."""
    tokens = Tokens.of(mask, batch, length)
    if tokens is None:
        return "a sequence begins with padding"
    return why_not_wanted(tokens.count)


def prepare(weights: EncoderWeights) -> None:
    """Packs the layers for native code now rather than in the first call, where it runs them."""
    if weights.device.type == "cpu" and is_wanted(1) and why_not(weights) is None:
        _native(weights)


def _whole(tokens: Tokens, x: Tensor) -> Tensor:
    """[batch, length, H] of the tokens' rows, the first ones of x; in x's memory where that has room for all."""
    places = tokens.batch * tokens.length
    if tokens.is_all:
        return x.view(tokens.batch, tokens.length, -1)
    return tokens.spread(x, x if len(x) == places else None)


def _native(weights: EncoderWeights) -> NativeEncoder | str:
    """The layers as native code of the instruction set in use has them; why it cannot have them, if it cannot."""
    name = instruction_set()
    if name not in weights.native:
        found = _made(weights)
        # By its own name: another thread may have set another set meanwhile.
        weights.native[name if isinstance(found, str) else found.instruction_set] = found
        return found
    return weights.native[name]


def _made(weights: EncoderWeights) -> NativeEncoder | str:
    if any(len(layer.projections) > 1 for layer in weights.layers):
        return "queries, keys and values quantize their input by different scales"
    with torch.inference_mode(False), torch.no_grad():
        try:
            return NativeEncoder([_layer(layer) for layer in weights.layers], weights.heads)
        except InputError as error:
            return str(error)


def _layer(layer: LayerWeights) -> EncoderLayer:
    (qkv,) = layer.projections
    return EncoderLayer(qkv, layer.attended, layer.attended_norm, layer.intermediate, layer.output, layer.output_norm)
