"""How a packed model gets its fused encoder, when that is taken, and when not."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.compiler import is_compiling

from sparseq_kernels import InputError

from ..packed_linear import PackedLinear
from .calls import Call, parameter_names, read_call, why_not_now
from .encoder import Attention, encode
from .families import Family, family_of
from .watch import Watch, unexpected_module
from .weights import EncoderWeights, UnfitError, read_weights


class FusedEncoder(nn.Module):
    """A base model whose forward runs its encoder fused where it can, and layer by layer otherwise.

    Its class is a subclass of the model's own (`fused_class`), of the same name. It has the same modules and state.
    What is made of them for the fused way is not saved, moved or copied, but made anew.

    fused_encoder: None and True take the fused way where it can be, False never does. `use_fused_encoder` sets it.
    """

    fused_encoder: bool | None = None
    _plain: type[nn.Module]
    _family: Family
    _arguments: tuple[str, ...]
    # What was read from the modules, or why they cannot run fused, and what both are valid for.
    _read: tuple[Watch, EncoderWeights | str] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_read"}

    def __reduce_ex__(self, protocol: Any) -> Any:
        # The class is made in each process, and cannot be found by its name: the one that it was made of can.
        made: Any = super().__reduce_ex__(protocol)
        return _new, (self._plain, *made[1][1:]), *made[2:]


def fuse(model: nn.Module) -> nn.Module:
    """Has each encoder in a packed model run fused where it can be; returns the model, changed in place.

    An encoder is the base model of a family in `families.FAMILIES`, alone or inside another model, such as
    BertForSequenceClassification. It gets a subclass of its class, of the same name; nothing else changes. Models
    without packed linear layers and of other architectures stay as they are.
    """
    for part in model.modules():
        family = family_of(type(part))
        if family is None or isinstance(part, FusedEncoder):
            continue
        if any(isinstance(module, PackedLinear) for module in part.modules()):
            part.__class__ = fused_class(type(part))
            _prepare(part)
    return model


_CLASSES: dict[type[nn.Module], type[nn.Module]] = {}


def fused_class(cls: type[nn.Module]) -> type[nn.Module]:
    """The subclass of `cls`, a base model's class of a family, whose forward runs fused where it can."""
    if cls not in _CLASSES:
        _CLASSES.setdefault(cls, _make_class(cls))
    return _CLASSES[cls]


def _make_class(cls: type[nn.Module]) -> type[nn.Module]:
    plain: Callable[..., Any] = cls.forward

    @functools.wraps(plain)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        # While compiling, the layers are what is traced.
        if not is_compiling():
            result = _run(self, args, kwargs)
            if not isinstance(result, str):
                return result
        return plain(self, *args, **kwargs)

    names = ("__module__", "__qualname__", "__doc__")
    members = {name: getattr(cls, name) for name in names} | {
        "forward": forward,
        "_plain": cls,
        "_family": family_of(cls),
        "_arguments": parameter_names(plain),
    }
    made: type[nn.Module] = type(cls.__name__, (FusedEncoder, cls), members)
    return made


def use_fused_encoder(model: nn.Module, on: bool | None = True) -> nn.Module:
    """Says whether the encoders in a packed model run fused, and returns the model.

    A fused encoder is one call of native code on a CPU, or a composition of few ops: queries, keys and values come from
    one product, each activation is quantized once, and padding is left out where that pays. Its results are those of
    the model's own layers, up to rounding, except at padded positions: hidden states there are not specified, and are
    zeros where padding was left out. A first position is computed even if it is padding.

    Args:
        model: a packed model.
        on: None, as for a model from `sparseq.pack` or `sparseq.load`: run fused in each call that can be. False:
            never. True: like None, after checking that the model can.

    Raises:
        InputError: with on=True, for a model that cannot run fused, saying why (see `fused_reason`).
    """
    encoders = list(_encoders(model))
    if on and (reason := fused_reason(model, of_model=True)) is not None:
        raise InputError(f"the model has no fused encoder: {reason}")
    for encoder in encoders:
        encoder.fused_encoder = on
    return model


def fused_reason(model: nn.Module, *, of_model: bool = False, **call: Any) -> str | None:
    """Why a call of the packed model would not run fused now; None if it would.

    Args:
        model: a packed model, alone or with a head.
        of_model: ask of the model's parts alone, not of modes such as training or recording of gradients.
        call: keyword arguments of the base model's forward, if the answer is to be for them.
    """
    encoders = list(_encoders(model))
    if not encoders:
        return _why_no_encoder(model)
    for encoder in encoders:
        found = _read_modules(encoder) if of_model else _why_not(encoder, call)
        if isinstance(found, str):
            return found
    return None


def _why_not(encoder: Any, call: dict[str, Any]) -> str | None:
    inputs = None
    if encoder.fused_encoder is False:
        return "it is turned off (sparseq.nn.use_fused_encoder)"
    if call:
        read = read_call(encoder._family, encoder._arguments, encoder.config, (), call)
        if isinstance(read, str):
            return read
        inputs = read.inputs
    found = _weights_now(encoder, inputs)
    return found if isinstance(found, str) else None


def _weights_now(encoder: Any, inputs: dict[str, Any] | None) -> EncoderWeights | str:
    """What a call with these inputs is computed with; why it does not run fused, if it does not."""
    if (reason := why_not_now(encoder, encoder.config, inputs)) is not None:
        return reason
    weights = _read_modules(encoder)
    if isinstance(weights, str):
        return weights
    reason = encoder._read[0].why_not()
    return weights if reason is None else reason


def _why_no_encoder(model: nn.Module) -> str:
    if not any(isinstance(module, PackedLinear) for module in model.modules()):
        return "it has no packed linear layers: call sparseq.pack"
    return (
        f"{type(model).__name__} runs layer by layer: fused encoders are those of BERT, RoBERTa, XLM-RoBERTa, "
        "CamemBERT, ELECTRA, DistilBERT and MPNet of transformers"
    )


def _encoders(model: nn.Module) -> Iterator[Any]:
    return (module for module in model.modules() if isinstance(module, FusedEncoder))


def _new(cls: type[nn.Module], *args: Any) -> Any:
    """An empty instance of the fused class of `cls`, for pickling and copying."""
    made = fused_class(cls)
    return made.__new__(made, *args)


def _prepare(encoder: Any) -> None:
    """Reads the weights now rather than in the first call, if they are there."""
    if not any(tensor.is_meta for tensor in (*encoder.parameters(), *encoder.buffers())):
        _read_modules(encoder)


def _read_modules(encoder: Any) -> EncoderWeights | str:
    """What the encoder's modules say, read anew if they or their tensors have changed."""
    known, root = encoder._read, encoder._family.encoder_of(encoder)
    if known is None or known[0].root is not root or not known[0].holds():
        watch = Watch.of(root)
        known = watch, _weights_of(encoder, watch)
        encoder._read = known
    found: EncoderWeights | str = known[1]
    return found


def _weights_of(encoder: Any, watch: Watch) -> EncoderWeights | str:
    if not watch.derived.watched:
        return "its tensors were made or moved in inference mode, or are of a subclass of Tensor"
    if (name := unexpected_module(watch.root, encoder._plain.__module__)) is not None:
        return f"its encoder has a block of the class {name}, which is not transformers' own"
    try:
        return read_weights(encoder._family.layers_of(encoder))
    except UnfitError as error:
        return str(error)
    except AttributeError as error:
        return f"it is built otherwise than this version of sparseq knows ({error})"


def _run(encoder: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The result of forward by the fused way; why it is not taken, as a string, if it is not."""
    if encoder.fused_encoder is False:
        return "it is turned off"
    call = read_call(encoder._family, encoder._arguments, encoder.config, args, kwargs)
    if isinstance(call, str):
        return call
    weights = _weights_now(encoder, call.inputs)
    return weights if isinstance(weights, str) else _forward(encoder, weights, call)


def _forward(encoder: Any, weights: EncoderWeights, call: Call) -> Any:
    family: Family = encoder._family
    hidden = family.embed(encoder, call.inputs)
    if hidden.dtype != weights.dtype or hidden.device != weights.device:
        return "its embeddings are of another dtype or on another device than its layers"
    real = None if call.mask is None else call.mask.to(hidden.device, torch.bool)
    if real is not None and not real.is_cuda and bool(real.all()):
        real = None
    bias = None if family.position_bias is None else family.position_bias(encoder, hidden[:1])
    attention = Attention(real, bias, encoder.config._attn_implementation == "eager")
    found = encode(weights, hidden, attention, every=call.hidden_states)
    states = tuple(found) if call.hidden_states else None
    return family.make_result(encoder, found[-1], states, call.return_dict)
