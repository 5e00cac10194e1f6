"""One call of a base model's forward: its arguments, and why it would not run fused."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sparseq_kernels.torch_internals import PLAIN_CLASSES, any_autocast, has_global_hooks, is_observed

from .families import Family

_OPTIONS = ("output_hidden_states", "output_attentions", "return_dict")
# Without effect on an encoder that is no decoder, and so not read.
_IGNORED = ("use_cache",)


@dataclass(frozen=True)
class Call:
    """What a call asks for. inputs: what the embeddings take; mask: [B, L], or None."""

    inputs: dict[str, Any]
    mask: Tensor | None
    hidden_states: bool
    return_dict: bool


def parameter_names(function: Any) -> tuple[str, ...]:
    """The positional parameters of a forward, without self; decorators are looked through."""
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    found = inspect.signature(function).parameters.values()
    return tuple(p.name for p in found if p.kind in plain)[1:]


def read_call(
    family: Family, names: Sequence[str], config: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Call | str:
    """The call, or why it does not run fused. names: of the arguments that are given by position."""
    given = dict(zip(names, args, strict=False))
    if len(given) < len(args) or given.keys() & kwargs.keys():
        return "its arguments do not fit its forward"
    given |= kwargs
    options = {name: _option(family, config, given, name) for name in _OPTIONS}
    mask = given.pop("attention_mask", None)
    inputs = {name: given.pop(name, None) for name in family.inputs}
    if (reason := _why_not_inputs(inputs, mask)) is not None:
        return reason
    for name, value in given.items():
        if value is not None and name not in _OPTIONS and name not in _IGNORED:
            return f"the call has an argument {name}"
    if options["output_attentions"]:
        return "attention probabilities are asked for (output_attentions)"
    if options["output_hidden_states"] not in (None, False, True):
        return "single hidden states are asked for (output_hidden_states is no bool)"
    return_dict = options["return_dict"] is not False if not family.old_style else bool(options["return_dict"])
    return Call(inputs, mask, bool(options["output_hidden_states"]), return_dict)


def _option(family: Family, config: Any, given: dict[str, Any], name: str) -> Any:
    default = getattr(config, name, name == "return_dict")
    value = given.get(name, default)
    return default if value is None and family.old_style else value


def _why_not_inputs(inputs: dict[str, Any], mask: Any) -> str | None:
    ids, embedded = inputs["input_ids"], inputs["inputs_embeds"]
    if (ids is None) == (embedded is None):
        return "it takes either input_ids or inputs_embeds"
    main = embedded if ids is None else ids
    for tensor in (*inputs.values(), mask):
        if tensor is not None and tensor.__class__ not in PLAIN_CLASSES:
            return f"an argument is a {type(tensor).__name__}, not a plain tensor"
    if main.dim() != (2 if embedded is None else 3) or 0 in main.shape:
        return "its input is no batch of sequences"
    if mask is not None and (mask.dim() != 2 or mask.shape != main.shape[:2]):
        return "its attention_mask is not of the shape [batch, length]"
    return None


def why_not_now(model: nn.Module, config: Any, inputs: dict[str, Any] | None) -> str | None:
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
    if getattr(config, "is_decoder", False) or getattr(config, "is_causal", False):
        return "it is a decoder"
    if config._attn_implementation not in ("sdpa", "eager"):
        return f"its attention is {config._attn_implementation!r}, not 'sdpa' or 'eager'"
    return None


def _any_gradient(inputs: dict[str, Any] | None) -> bool:
    embedded = None if inputs is None else inputs["inputs_embeds"]
    return embedded is not None and bool(embedded.requires_grad)
