"""Attributes, hooks and masks that users put on a plain layer: moved to the layer that replaces it, or refused."""

import types
import weakref
from collections import OrderedDict
from copy import deepcopy
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import prune

from sparseq_kernels import InputError
from sparseq_kernels.torch_internals import FakeTensor, has_values

from .masking import MaskedWeight
from .settings import check_dtype
from .static_scale import StaticScale

_HELD = frozenset(("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set", "training"))
# Hooks of every kind that this torch has, and the flags that belong to them.
HOOKS = frozenset(vars(nn.Module()).keys() - _HELD)
# Attributes that are a sparseq layer's own.
OWN = frozenset(
    (
        "settings_",
        "pattern",
        "quantizing",
        "regrow",
        "lineage",
        "_block_index",
        "_indexed",
        "_indexed_version",
        "_reading",
    )
) | {"_shared", "range_follows"}
_REMEDIES = {
    "WeightNorm": "torch.nn.utils.remove_weight_norm(layer)",
    "SpectralNorm": "torch.nn.utils.remove_spectral_norm(layer)",
}


def check_attached(
    layer: nn.Module, name: str = "", *, takes_mask: bool = True, otherwise: str = "leave the layer out with exclude="
) -> None:
    """Raises InputError, saying what to do, if replacing the layer would lose something.

    Refused are: a weight computed from other parameters; additional parameters, buffers or modules; a replaced method;
    hooks of accelerate. Hooks and other attributes are accepted, because `carry` moves them; with `takes_mask`, so is a
    mask of `torch.nn.utils.prune` on the weight. otherwise: an alternative for a layer that has a name.
    """
    where = f"layer {name!r}" if name else "the layer"
    way_out = f"or {otherwise}" if name else "and then try again"
    own = vars(layer)

    def refuse(what: str, remedy: str) -> InputError:
        return InputError(f"{where} {what}, which would be lost: {remedy} first, {way_out}")

    if any(nn.parameter.is_lazy(p) for p in layer.parameters(recurse=False)):
        raise refuse("has no shape yet (it is lazy)", "run the model on one batch")
    if hasattr(layer, "parametrizations"):
        tensors = ", ".join(map(repr, layer.parametrizations))  # type: ignore[arg-type]
        raise refuse(
            f"has a parametrization of {tensors}",
            "call torch.nn.utils.parametrize.remove_parametrizations(layer, tensor_name)",
        )
    if "_hf_hook" in own:
        remedy = "call accelerate.hooks.remove_hook_from_module(model, recurse=True)"
        raise refuse("carries a hook of accelerate, in place of its forward", remedy)
    if own.get("_compiled_call_impl") is not None:
        raise refuse("was compiled in place", "convert, then compile")
    for key, value in own.items():
        if key not in HOOKS and callable(getattr(type(layer), key, None)) and not _is_own_method(layer, key, value):
            raise refuse(f"has a {key} of its own, put on the instance", f"delete that attribute (del layer.{key})")
    pruned = [hook._tensor_name for hook in _pruning(layer)]
    if pruned and (pruned != ["weight"] or not takes_mask or not _is_zero_or_one(layer.weight_mask)):
        remedy = f"make it permanent with torch.nn.utils.prune.remove(layer, {pruned[-1]!r})"
        raise refuse(f"has a mask of torch.nn.utils.prune on {', '.join(map(repr, pruned))}", remedy)
    held = layer._parameters.get("weight_orig" if pruned else "weight")
    if held is None:
        kind = next((n for h in layer._forward_pre_hooks.values() if (n := type(h).__name__) in _REMEDIES), None)
        remedy = "make its weight a parameter" if kind is None else f"call {_REMEDIES[kind]}"
        raise refuse("computes its weight from other tensors" + (f" ({kind})" if kind else ""), remedy)
    expected = {"weight", "bias", "mask", "step_size", "input_scale"} | (
        {"weight_orig", "weight_mask"} if pruned else set()
    )
    for kind, held_by in (("parameter", layer._parameters), ("buffer", layer._buffers), ("module", layer._modules)):
        if extra := [key for key in held_by if key not in expected]:
            raise refuse(f"has a {kind} {extra[0]!r} of its own", f"remove it (del layer.{extra[0]})")
    if taken := [key for key in _extra(layer) if _is_taken(key)]:
        raise refuse(f"has an attribute {taken[0]!r}, a name that sparseq's layers use", "rename it")
    check_dtype(held.dtype, where)
    if not _is_plain(held):
        what = f"keeps its weight in a {type(held).__name__}"
        raise refuse(what, "convert the model before it is sharded or quantized by another library, starting over")


def has_call_hooks(layer: nn.Module) -> bool:
    """Whether hooks of a forward or backward hang on the layer."""
    kinds = (kind for kind in HOOKS if kind.startswith(("_forward", "_backward")) and kind.endswith("hooks"))
    return any(getattr(layer, kind) for kind in kinds)


def check_replaceable(layer: nn.Module, kind: type[nn.Module], name: str = "") -> None:
    """Like `check_attached`, and also requires that the layer is exactly of this plain class.

    A subclass may compute something else.
    """
    check_attached(layer, name)
    if type(layer) is not kind:
        remedy = "call to_linear() or to_embedding() first" if isinstance(layer, MaskedWeight) else "swap it by hand"
        raise InputError(
            f"a {type(layer).__name__} is not exactly an nn.{kind.__name__}, and what it computes beyond that would be "
            f"lost: {remedy}"
        )


def carry(old: nn.Module, new: nn.Module, *, copy: bool = False) -> None:
    """Moves what users put on `old` to `new`: hooks of every kind and other attributes, with methods bound to `new`.

    The handles of the hooks then remove them from `new`. With `copy`, the hooks stay on `old`, and `new` gets its own.
    """
    pruning = list(_pruning(old))
    for key in HOOKS & vars(old).keys():
        value = vars(old)[key]
        if isinstance(value, dict) and (copy or (pruning and key == "_forward_pre_hooks")):
            value = OrderedDict((number, hook) for number, hook in value.items() if hook not in pruning)
        vars(new)[key] = value
    for key, hook in list(vars(new)["_load_state_dict_pre_hooks"].items()):
        if getattr(hook, "with_module", False):  # torch stores the module that it passes to such a hook
            bound = type(hook)(hook.hook, new) if copy else hook
            bound.module = weakref.ref(new)
            vars(new)["_load_state_dict_pre_hooks"][key] = bound
    for key, value in _extra(old).items():
        bound_to_old = isinstance(value, types.MethodType) and value.__self__ is old
        vars(new)[key] = types.MethodType(value.__func__, new) if bound_to_old else value


def carry_to_packed(old: nn.Module, new: nn.Module) -> None:
    """Like `carry` with copies, to a layer of another class.

    Raises InputError for an attribute whose name the new layer uses.
    """
    taken = [key for key in _extra(old) if key in vars(new) or hasattr(type(new), key)]
    if taken:
        raise InputError(f"it has an attribute {taken[0]!r}, a name that a {type(new).__name__} uses: rename it first")
    carry(old, new, copy=True)


def copy_attached(old: nn.Module, new: nn.Module, memo: dict[int, Any]) -> None:
    """Copies what `new` got from `old`, with the `memo` of the deep copy of their models.

    A hook that is a method of one model becomes the method of the other.
    """
    memo[id(new)] = new
    for key in (*HOOKS, *_extra(old)):
        vars(new)[key] = deepcopy(vars(new)[key], memo)


def weight_and_mask(layer: nn.Module) -> tuple[nn.Parameter, Tensor | None]:
    """The layer's weight, and the mask that torch.nn.utils.prune keeps for it."""
    if not any(True for _ in _pruning(layer)):
        return layer.weight, None  # type: ignore[return-value]
    return layer.weight_orig, layer.weight_mask.bool()  # type: ignore[return-value, operator]


def _extra(layer: nn.Module) -> dict[str, Any]:
    """Attributes set on the layer that its class does not have."""
    plain = nn.Linear if isinstance(layer, nn.Linear) else nn.Embedding
    known = vars(plain(1, 1, device="meta"))
    # torch.nn.utils.prune keeps the masked weight as an attribute.
    ours = OWN if isinstance(layer, MaskedWeight) else ()
    extra = {k: v for k, v in vars(layer).items() if k not in known and k not in ours and k != "weight"}
    return {k: v for k, v in extra.items() if not _is_own_method(layer, k, v)}


def _is_own_method(layer: nn.Module, key: str, value: Any) -> bool:
    """Whether an attribute is the class's own method, as accelerate leaves it after removing its hook."""
    bound = isinstance(value, types.MethodType) and value.__self__ is layer
    return bound and value.__func__ is getattr(type(layer), key, None)


def _is_taken(key: str) -> bool:
    return key in OWN or hasattr(MaskedWeight, key) or hasattr(StaticScale, key)


def _pruning(layer: nn.Module) -> Any:
    return (h for h in layer._forward_pre_hooks.values() if isinstance(h, prune.BasePruningMethod))


def _is_zero_or_one(mask: Any) -> bool:
    return not has_values(mask) or bool(((mask == 0) | (mask == 1)).all())


def _is_plain(tensor: Tensor) -> bool:
    return type(tensor) in (Tensor, nn.Parameter) or isinstance(tensor, FakeTensor)
