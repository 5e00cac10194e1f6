"""How a packed model gets its fused encoder, and when that is taken."""

import functools
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.compiler import is_compiling

from sparseq_kernels.cpu.native_weight import is_wanted
from sparseq_kernels.torch_internals import tracing_state

from ..inference_mode import normal, outside_inference_mode
from ..packed_linear import PackedLinear
from . import one_call
from .calls import Call, Options, options_of, parameter_names, read_call, why_not_now
from .embeddings import Entry, read_embeddings
from .encoder import Attention, encode
from .families import Family, family_of
from .pooler import read_pooler
from .reading import Readings, UnfitError, readings_of
from .watch import unexpected_module
from .weights import EncoderWeights, read_weights


class FusedEncoder(nn.Module):
    """A base model whose forward runs its encoder fused where it can, and layer by layer otherwise.

    Its class is a subclass of the model's own (`fused_class`), of the same name. It has the same modules and state.
    What is made of them for the fused way is not saved, moved or copied, but made anew.

    fused_encoder: None and True take the fused way where it can be, False never does. bf16_attention: whether the one
    call of native code multiplies in bf16 in attention. `use_fused_encoder` sets both.
    """

    fused_encoder: bool | None = None
    bf16_attention: bool = False
    _plain: type[nn.Module]
    _family: Family
    _arguments: tuple[str, ...]
    # What was read from the layers, the embeddings and the pooler, and from the configuration.
    _read: Readings | None = None
    _read_options: tuple[Any, dict[str, Any], Options] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if not name.startswith("_read")}

    def __reduce_ex__(self, protocol: Any) -> Any:
        # The class is made in each process, and cannot be found by its name: the one that it was made of can.
        made: Any = super().__reduce_ex__(protocol)
        return _new, (self._plain, *made[1][1:]), *made[2:]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "FusedEncoder":
        """What moves a model and changes its dtype. In inference mode it makes the same tensors as otherwise."""
        apply = super()._apply
        if not any(tensor.is_inference() for tensor in (*self.parameters(), *self.buffers())):
            apply = outside_inference_mode(apply)
        apply(fn, recurse)
        return self


def fuse(model: nn.Module) -> nn.Module:
    """Has each encoder in a packed model run fused where it can be; returns the model, changed in place.

    An encoder is the base model of a family in `families.FAMILIES`, alone or inside another model, such as
    BertForSequenceClassification. It gets a subclass of its class, of the same name; nothing else changes. Models
    without packed linear layers and of other architectures stay as they are.
    """
    for part in model.modules():
        if isinstance(part, FusedEncoder) or family_of(type(part)) is None:
            continue
        if any(isinstance(module, PackedLinear) for module in part.modules()):
            part.__class__ = fused_class(type(part))
    encoders = [part for part in model.modules() if isinstance(part, FusedEncoder)]
    if encoders:
        _replace_inference_tensors(model)
    for encoder in encoders:
        _prepare(encoder)
    return model


def unfuse(model: nn.Module) -> nn.Module:
    """Gives each fused encoder in the model its own class again; returns the model, changed in place."""
    for part in model.modules():
        if isinstance(part, FusedEncoder):
            part.__class__ = part._plain  # type: ignore[assignment]
            for name in [name for name in part.__dict__ if name.startswith("_read")]:
                delattr(part, name)
    return model


def _replace_inference_tensors(model: nn.Module) -> None:
    """Replaces tensors that were made in inference mode by copies: changes of those could not be seen (`watch`)."""
    made: dict[int, Tensor] = {}
    for module in model.modules():
        holders: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
        for own in holders:
            for name, tensor in own.items():
                if tensor is not None and tensor.is_inference():
                    if id(tensor) not in made:
                        made[id(tensor)] = _normal(tensor)
                    own[name] = made[id(tensor)]


def _normal(tensor: Tensor) -> Tensor:
    copy = normal(tensor.detach())
    return nn.Parameter(copy, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else copy


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
        # The layers are what is compiled or traced.
        if not is_compiling() and tracing_state() is None:
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
    weights = parts_of(encoder).each[0].found
    if not isinstance(weights, str) and encoder._family.position_bias is None:
        one_call.prepare(weights)


def parts_of(encoder: Any) -> Readings:
    """What the model's parts say: its layers, EncoderWeights, its embeddings and its pooler, or why they cannot be
    used so."""
    modules = encoder._modules
    roots = [modules[encoder._family.encoder], modules["embeddings"]]
    if (pooler := modules.get("pooler")) is not None:
        roots.append(pooler)
    known: Readings | None = encoder._read
    found = readings_of(encoder, known, roots, _READ)
    if found is not known:
        encoder._read = found
    return found


def _read_layers(encoder: Any, root: nn.Module) -> EncoderWeights:
    if (name := unexpected_module(root, encoder._plain.__module__)) is not None:
        raise UnfitError(f"its encoder has a block of the class {name}, which is not transformers' own")
    return read_weights(encoder._family.layers_of(encoder))


_READ = (_read_layers, read_embeddings, read_pooler)


def parts_now(encoder: Any, options: Options, inputs: dict[str, Any] | None) -> tuple[Any, ...] | str:
    """What a call with these inputs is computed with, as `parts_of` gives it; why it does not run fused, if it does
    not."""
    if (reason := why_not_now(encoder, options, inputs)) is not None:
        return reason
    found = parts_of(encoder).now()
    return found[0] if isinstance(found[0], str) else found


def _run(encoder: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The result of forward by the fused way; why it is not taken, as a string, if it is not."""
    if encoder.fused_encoder is False:
        return "it is turned off"
    options = options_of(encoder)
    call = read_call(encoder._family, encoder._arguments, options, args, kwargs)
    if isinstance(call, str):
        return call
    parts = parts_now(encoder, options, call.inputs)
    return parts if isinstance(parts, str) else _forward(encoder, parts, call, options.attention == "eager")


def _forward(encoder: Any, parts: tuple[Any, ...], call: Call, eager: bool) -> Any:
    family: Family = encoder._family
    weights, embeddings = parts[:2]
    native = one_call.why_not(weights) is None
    entry = Entry(encoder, weights, embeddings if native and not isinstance(embeddings, str) else None, call.inputs)
    bias = None if family.position_bias is None else functools.partial(family.position_bias, encoder)
    attention = Attention(call.mask, bias, eager, encoder.bf16_attention)
    try:
        found = encode(weights, entry, attention, native=native, every=call.hidden_states)
    except UnfitError as error:
        return str(error)
    last = found[-1]
    values: dict[str, Any] = {"last_hidden_state": last}
    if family.has_pooler:
        pooler = encoder._modules.get("pooler")
        if native and pooler is not None and not isinstance(parts[2], str) and is_wanted(len(last)):
            pooler = parts[2]
        values["pooler_output"] = None if pooler is None else pooler(last)
    if call.hidden_states:
        values["hidden_states"] = tuple(found)
    return family.make_result(values, call.return_dict)
