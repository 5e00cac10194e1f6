"""Checks before `convert` swaps layers: kinds without a quantized form, wrappers, offloading and adapters."""

from collections import Counter
from collections.abc import Iterable, Mapping

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from sparseq_kernels import InputError

from .attached import HOOKS
from .masking import MaskedWeight
from .packed import Packed
from .selectors import Selector, chosen

# Modules that use their layers' weights without calling the layers.
FUSED = (nn.MultiheadAttention, nn.TransformerEncoderLayer)


def inside_fused_attention(model: nn.Module) -> set[str]:
    """Layers whose weights `nn.MultiheadAttention` and the fused encoder layer read without calling the layers."""
    return {
        f"{name}.{child}" if name else child
        for name, module in model.named_modules()
        if isinstance(module, FUSED)
        for child, _ in module.named_modules()
        if child
    }


def left_out(model: nn.Module, include: tuple[Selector, ...], exclude: tuple[Selector, ...]) -> str:
    """The modules with a weight matrix that have no quantized form, by kind ("8 Conv1D and 1 Conv2d, ...").

    The result is "" if there are none. Modules that the name patterns of include and exclude leave out are not listed.
    """
    names = tuple(s for s in include if isinstance(s, str))
    fused = inside_fused_attention(model)
    kinds: Counter[str] = Counter()
    first = ""
    for name, module in model.named_modules():
        if name in fused or isinstance(module, MaskedWeight | Packed) or type(module) in (nn.Linear, nn.Embedding):
            continue
        if (isinstance(module, FUSED) or _has_matrix(module)) and chosen(name, module, names, exclude):
            kinds[type(module).__name__] += 1
            first = first or name
    if not kinds:
        return ""
    return " and ".join(f"{count} {kind}" for kind, count in kinds.items()) + f" (the first is {first!r})"


def _has_matrix(module: nn.Module) -> bool:
    return any(
        n.startswith(("weight", "in_proj_weight")) and (nn.parameter.is_lazy(p) or p.dim() > 1)
        for n, p in module.named_parameters(recurse=False)
    )


def check_unwrapped(model: nn.Module) -> None:
    """Raises InputError for a model wrapped for several processes: the wrapper would not see new parameters."""
    for name, module in model.named_modules():
        kind = type(module).__name__
        if isinstance(module, DistributedDataParallel) or kind in ("FullyShardedDataParallel", "DeepSpeedEngine"):
            raise InputError(
                f"the model is wrapped in {kind}{f' at {name!r}' if name else ''}, which would not see the new "
                "parameters: convert the model first, then wrap it"
            )


def check_no_offload(model: nn.Module) -> None:
    """Raises InputError for a module whose weights accelerate keeps elsewhere and loads only for its forward."""
    for name, module in model.named_modules():
        if "_hf_hook" in vars(module) and any(p.is_meta for p in module.parameters()):
            raise InputError(
                f"module {name!r} has weights that accelerate keeps elsewhere (offload): load the model without "
                "device_map, or call accelerate.hooks.remove_hook_from_module(model, recurse=True), then convert it"
            )


def check_not_held_elsewhere(model: nn.Module, picked: Mapping[str, nn.Module]) -> None:
    """Raises InputError if a module keeps a layer to be swapped, or a method of it, where torch does not see it.

    That is a plain attribute, a list, tuple or dict: the old layer would still be used there.
    """
    names = {id(layer): name for name, layer in picked.items()}
    for owner, module in model.named_modules():
        for key, value in vars(module).items():
            if key in ("_modules", *HOOKS) or id(module) in names:
                continue
            several = value.values() if isinstance(value, dict) else value
            for item in several if isinstance(value, list | tuple | dict | set) else (value,):
                found = names.get(id(getattr(item, "__self__", item)))
                if found is not None:
                    where = f"{owner}.{key}" if owner else key
                    raise InputError(
                        f"layer {found!r} is also kept in {where!r}, a plain attribute, which would still be using the "
                        "old layer: keep it in an nn.ModuleList, or look it up by its name, or leave it out with "
                        "exclude="
                    )


def check_no_adapters(model: nn.Module, picked: Iterable[str]) -> None:
    """Raises InputError if a layer to be swapped belongs to an adapter of peft.

    Adapters stay in floating point, to be merged later.
    """
    adapters: dict[str, str] = {}
    for name in picked:
        parts = name.split(".")
        for end in range(len(parts)):
            parent = model.get_submodule(".".join(parts[:end]))
            if type(parent).__module__.startswith("peft.") and hasattr(parent, "base_layer"):
                if parts[end] != "base_layer":
                    adapters.setdefault(f"*.{parts[end]}.*", name)
                break
    if adapters:
        raise InputError(
            f"layer {next(iter(adapters.values()))!r} is part of an adapter of peft, which stays in floating point: "
            f"convert the model before get_peft_model, or leave adapters out with exclude={tuple(adapters)}, or merge "
            "them with merge_and_unload()"
        )
