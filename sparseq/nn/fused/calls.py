"""One call of a base model's forward: its arguments, and why it would not run fused."""

import inspect
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sparseq_kernels.torch_internals import PLAIN_CLASSES, any_autocast, has_global_hooks, is_observed

from .families import Family

# Without effect on an encoder that is no decoder, and so not read.
_IGNORED = ("use_cache",)


class Options(NamedTuple):
    """What a model's configuration says about a call."""

    output_hidden_states: Any
    output_attentions: Any
    return_dict: Any
    is_decoder: bool
    attention: str


class Call(NamedTuple):
    """What a call asks for. inputs: what the embeddings take; mask: [B, L], or None."""

    inputs: dict[str, Any]
    mask: Tensor | None
    hidden_states: bool
    return_dict: bool


def options_of(model: Any) -> Options:
    """The options in the model's configuration.

    They are read again when an attribute of it changes: each look-up in a configuration takes some microseconds.
    """
    config = model.config
    attributes: dict[str, Any] = object.__getattribute__(config, "__dict__")
    known = model._read_options
    if known is None or known[0] is not config or not _same(known[1], attributes):
        found = Options(
            getattr(config, "output_hidden_states", False),
            getattr(config, "output_attentions", False),
            getattr(config, "return_dict", True),
            bool(getattr(config, "is_decoder", False) or getattr(config, "is_causal", False)),
            config._attn_implementation,
        )
        known = config, dict(attributes), found
        model._read_options = known
    options: Options = known[2]
    return options


def _same(known: dict[str, Any], attributes: dict[str, Any]) -> bool:
    try:
        return known == attributes
    except Exception:  # Of values that do not say whether they are equal, such as arrays.
        return False


def parameter_names(function: Any) -> tuple[str, ...]:
    """The positional parameters of a forward, without self; decorators are looked through."""
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    found = inspect.signature(function).parameters.values()
    return tuple(p.name for p in found if p.kind in plain)[1:]


def read_call(
    family: Family, names: Sequence[str], options: Options, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Call | str:
    """The call, or why it does not run fused. names: of the arguments that are given by position."""
    given = kwargs
    if args:
        given = dict(zip(names, args, strict=False))
        if len(given) < len(args) or given.keys() & kwargs.keys():
            return "its arguments do not fit its forward"
        given |= kwargs
    hidden_states, attentions, return_dict = options[:3]
    mask, inputs = None, dict.fromkeys(family.inputs)
    unknown = None
    for name, value in given.items():
        if name in inputs:
            inputs[name] = value
        elif name == "attention_mask":
            mask = value
        elif name == "output_hidden_states":
            hidden_states = _option(family, value, hidden_states)
        elif name == "output_attentions":
            attentions = _option(family, value, attentions)
        elif name == "return_dict":
            return_dict = _option(family, value, return_dict)
        elif value is not None and name not in _IGNORED:
            unknown = name
    if (reason := _why_not_inputs(inputs, mask)) is not None:
        return reason
    if unknown is not None:
        return f"the call has an argument {unknown}"
    if attentions:
        return "attention probabilities are asked for (output_attentions)"
    if hidden_states not in (None, False, True):
        return "single hidden states are asked for (output_hidden_states is no bool)"
    return Call(inputs, mask, bool(hidden_states), bool(return_dict) if family.old_style else return_dict is not False)


def _option(family: Family, given: Any, default: Any) -> Any:
    return default if given is None and family.old_style else given


def _why_not_inputs(inputs: dict[str, Any], mask: Any) -> str | None:
    ids, embedded = inputs["input_ids"], inputs["inputs_embeds"]
    if (ids is None) == (embedded is None):
        return "it takes either input_ids or inputs_embeds"
    main = embedded if ids is None else ids
    for tensor in (*inputs.values(), mask):
        if tensor is not None and tensor.__class__ not in PLAIN_CLASSES:
            return f"an argument is a {type(tensor).__name__}, not a plain tensor"
    shape = main.shape
    if len(shape) != (2 if embedded is None else 3) or 0 in shape:
        return "its input is no batch of sequences"
    if mask is not None and mask.shape != shape[:2]:
        return "its attention_mask is not of the shape [batch, length]"
    return None


def why_not_now(model: nn.Module, options: Options, inputs: dict[str, Any] | None) -> str | None:
    """Why nothing runs fused now, whatever the arguments: modes of torch, of the model and of its configuration.

    inputs: those of the call, if there is one.
    """
    if model.training:
        return "it is in training mode: call model.eval()"
    if is_observed():
        return "the call is traced, transformed or observed by a mode of torch"
    if has_global_hooks():
        return "forward hooks are registered for all modules"
    if any_autocast():
        return "autocast is on"
    if torch.is_grad_enabled() and (_any_gradient(inputs) or any(p.requires_grad for p in model.parameters())):
        return "gradients are recorded: call it within torch.inference_mode() or torch.no_grad()"
    if getattr(model, "_is_replica", False):
        return "it is a replica of nn.DataParallel"
    if options.is_decoder:
        return "it is a decoder"
    if options.attention not in ("sdpa", "eager"):
        return f"its attention is {options.attention!r}, not 'sdpa' or 'eager'"
    return None


def _any_gradient(inputs: dict[str, Any] | None) -> bool:
    embedded = None if inputs is None else inputs["inputs_embeds"]
    return embedded is not None and bool(embedded.requires_grad)
