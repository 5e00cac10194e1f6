"""How a packed model gets its fused encoder, and when that is taken."""

import functools
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.compiler import is_compiling

from ..packed_linear import PackedLinear
from .calls import Call, parameter_names, read_call, why_not_now
from .embeddings import Entry
from .encoder import Attention, encode
from .families import Family, family_of
from .one_call import prepare
from .pooler import pooled
from .reading import Reading, UnfitError, reading_of
from .watch import unexpected_module
from .weights import EncoderWeights, read_weights


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
    # What was read from the layers, the embeddings and the pooler.
    _read: Reading | None = None
    _read_embeddings: Reading | None = None
    _read_pooler: Reading | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if not name.startswith("_read")}

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


def _new(cls: type[nn.Module], *args: Any) -> Any:
    """An empty instance of the fused class of `cls`, for pickling and copying."""
    made = fused_class(cls)
    return made.__new__(made, *args)


def _prepare(encoder: Any) -> None:
    """Reads the weights now rather than in the first call, if they are there, and packs them for native code."""
    if any(tensor.is_meta for tensor in (*encoder.parameters(), *encoder.buffers())):
        return
    weights = encoder_reading(encoder).found
    if not isinstance(weights, str) and encoder._family.position_bias is None:
        prepare(weights)


def encoder_reading(encoder: Any) -> Reading:
    """What the encoder's layers say: EncoderWeights, or why they cannot run fused."""
    root = encoder._family.encoder_of(encoder)
    return reading_of(encoder, "_read", root, lambda: _weights_of(encoder, root))


def _weights_of(encoder: Any, root: nn.Module) -> EncoderWeights:
    if (name := unexpected_module(root, encoder._plain.__module__)) is not None:
        raise UnfitError(f"its encoder has a block of the class {name}, which is not transformers' own")
    return read_weights(encoder._family.layers_of(encoder))


def weights_now(encoder: Any, inputs: dict[str, Any] | None) -> EncoderWeights | str:
    """What a call with these inputs is computed with; why it does not run fused, if it does not."""
    if (reason := why_not_now(encoder, encoder.config, inputs)) is not None:
        return reason
    found: EncoderWeights | str = encoder_reading(encoder).now()
    return found


def _run(encoder: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The result of forward by the fused way; why it is not taken, as a string, if it is not."""
    if encoder.fused_encoder is False:
        return "it is turned off"
    call = read_call(encoder._family, encoder._arguments, encoder.config, args, kwargs)
    if isinstance(call, str):
        return call
    weights = weights_now(encoder, call.inputs)
    return weights if isinstance(weights, str) else _forward(encoder, weights, call)


def _forward(encoder: Any, weights: EncoderWeights, call: Call) -> Any:
    family: Family = encoder._family
    bias = None if family.position_bias is None else functools.partial(family.position_bias, encoder)
    attention = Attention(call.mask, bias, encoder.config._attn_implementation == "eager")
    try:
        found = encode(weights, Entry(encoder, weights, call.inputs), attention, every=call.hidden_states)
    except UnfitError as error:
        return str(error)
    values: dict[str, Any] = {"last_hidden_state": found[-1]}
    if family.has_pooler:
        values["pooler_output"] = pooled(encoder, found[-1])
    if call.hidden_states:
        values["hidden_states"] = tuple(found)
    return family.make_result(values, call.return_dict)
