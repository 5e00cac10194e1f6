"""Whether the encoders of a packed model run fused, which way a call takes, and why not a faster one."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from sparseq_kernels import InputError
from sparseq_kernels.cpu.encoder import why_no_bf16_attention

from ..packed_linear import PackedLinear
from . import one_call
from .calls import Call, options_of, read_call
from .embeddings import batch_shape
from .model import FusedEncoder, parts_now, parts_of
from .weights import EncoderWeights


@dataclass(frozen=True)
class FusedWay:
    """How the encoder of a packed model runs. As a string it is the name, followed by the reason if there is one.

    name: "one call" (of native code, on a CPU), "ops" (a composition of few ops), or "layer by layer" (not fused).
    reason: why it is not one of those before; None for "one call".
    """

    name: str
    reason: str | None = None

    def __str__(self) -> str:
        return self.name if self.reason is None else f"{self.name}: {self.reason}"


_NAMES = ("one call", "ops", "layer by layer")  # The fastest first.


def use_fused_encoder(model: nn.Module, on: bool | None = True, *, bf16_attention: bool | None = None) -> nn.Module:
    """Says whether the encoders in a packed model run fused, and returns the model.

    A fused encoder is one call of native code on a CPU, or a composition of few ops: queries, keys and values come from
    one product, each activation is quantized once, and padding is left out where that pays. Its results are those of
    the model's own layers, up to rounding, except at padded positions: hidden states there are not specified, and are
    zeros where padding was left out. A first position is computed even if it is padding.

    Args:
        model: a packed model.
        on: None, as for a model from `sparseq.pack` or `sparseq.load`: run fused in each call that can be. False:
            never. True: like None, after checking that the model can.
        bf16_attention: whether attention multiplies in bf16 (and adds in fp32) in the one call of native code, which
            takes a processor with AVX-512 BF16. It is off at first; None leaves it as it is.

    Raises:
        InputError: with on=True, for a model that cannot run fused, saying why (see `fused_reason`); with
            bf16_attention=True, where native code cannot multiply so.
    """
    encoders = list(_encoders(model))
    if bf16_attention and (reason := why_no_bf16_attention()) is not None:
        raise InputError(f"attention cannot multiply in bf16: {reason}")
    if on and (reason := fused_reason(model, of_model=True)) is not None:
        raise InputError(f"the model has no fused encoder: {reason}")
    for encoder in encoders:
        encoder.fused_encoder = on
        if bf16_attention is not None:
            encoder.bf16_attention = bf16_attention
    return model


def fused_reason(model: nn.Module, *, of_model: bool = False, **call: Any) -> str | None:
    """Why a call of the packed model would not run fused now; None if it would. `fused_way` says more.

    Args:
        model: a packed model, alone or with a head.
        of_model: ask of the model's parts alone, not of modes such as training or recording of gradients.
        call: keyword arguments of the base model's forward, if the answer is to be for them.
    """
    encoders = list(_encoders(model))
    if not encoders:
        return _why_no_encoder(model)
    for encoder in encoders:
        found = parts_of(encoder).each[0].found if of_model else _weights(encoder, _call_of(encoder, call))
        if isinstance(found, str):
            return found
    return None


def fused_way(model: nn.Module, **call: Any) -> FusedWay:
    """How a call of the packed model would run now, and why not faster: the slowest of its encoders' ways.

    Args:
        model: a packed model, alone or with a head.
        call: keyword arguments of the base model's forward. Without any, the answer is for those that suit it best.
    """
    ways = [_way(encoder, _call_of(encoder, call)) for encoder in _encoders(model)]
    if not ways:
        return FusedWay("layer by layer", _why_no_encoder(model))
    return max(ways, key=lambda way: _NAMES.index(way.name))


def _way(encoder: Any, call: Call | str | None) -> FusedWay:
    weights = _weights(encoder, call)
    if isinstance(weights, str):
        return FusedWay("layer by layer", weights)
    reason = one_call.why_not(weights)
    if reason is None and encoder._family.position_bias is not None:
        reason = "its attention adds a bias of positions"
    if reason is None:
        reason = one_call.why_not_layers(weights)
    if reason is None and isinstance(call, Call):
        reason = one_call.why_not_tokens(call.mask, *batch_shape(call.inputs))
    return FusedWay("one call") if reason is None else FusedWay("ops", reason)


def _weights(encoder: Any, call: Call | str | None) -> EncoderWeights | str:
    """What a call is computed with; why it does not run fused, if it does not."""
    if encoder.fused_encoder is False:
        return "it is turned off (sparseq.nn.use_fused_encoder)"
    if isinstance(call, str):
        return call
    found = parts_now(encoder, options_of(encoder), None if call is None else call.inputs)
    return found if isinstance(found, str) else found[0]


def _call_of(encoder: Any, call: dict[str, Any]) -> Call | str | None:
    return read_call(encoder._family, encoder._arguments, options_of(encoder), (), call) if call else None


def _why_no_encoder(model: nn.Module) -> str:
    if not any(isinstance(module, PackedLinear) for module in model.modules()):
        return "it has no packed linear layers: call sparseq.pack"
    return (
        f"{type(model).__name__} runs layer by layer: fused encoders are those of BERT, RoBERTa, XLM-RoBERTa, "
        "CamemBERT, ELECTRA, DistilBERT and MPNet of transformers"
    )


def _encoders(model: nn.Module) -> Iterator[Any]:
    return (module for module in model.modules() if isinstance(module, FusedEncoder))
