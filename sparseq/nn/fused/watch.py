"""Whether an encoder's modules and tensors are still those that something was read from, in a few microseconds."""

from dataclasses import dataclass
from itertools import repeat
from operator import is_
from typing import Any

from torch import Tensor, nn

from ..derived import Derived
from ..packed import Packed

# By name, so that transformers is not imported. Its hooks record hidden states for those who asked; they are put into
# every layer at the first such call of a model, and do nothing in other calls.
_RECORDER = "transformers.utils.output_capturing"


@dataclass(frozen=True)
class Watch:
    """The modules of `roots` and below, and the tensors that they hold, as they were when this was made.

    The looks are loops in C, over dictionaries that were found once: there are hundreds of them in a model.
    """

    roots: tuple[nn.Module, ...]
    # Per module: its attributes.
    attributes: tuple[dict[str, Any], ...]
    # Per packed module: its attributes, and how often it made anew what it derives from its tensors.
    packed: tuple[dict[str, Any], ...]
    expansions: list[Any]
    hooks: tuple[dict[int, Any], ...]
    # Per submodule: the dictionary that it is in, its name there, itself.
    parents: tuple[dict[str, Any], ...]
    names: tuple[str, ...]
    children: tuple[nn.Module | None, ...]
    # Per tensor, likewise. None where a module has none of that name.
    holders: tuple[dict[str, Any], ...]
    keys: tuple[str, ...]
    tensors: tuple[Tensor | None, ...]
    derived: Derived

    @classmethod
    def of(cls, *roots: nn.Module) -> "Watch":
        modules = list(dict.fromkeys(module for root in roots for module in root.modules()))
        links = [(module._modules, *item) for module in modules for item in module._modules.items()]
        held = [
            (holder, *item)
            for module in modules
            for holder in (module._parameters, module._buffers)
            for item in holder.items()
        ]
        tensors = tuple(tensor for _, _, tensor in held)
        return cls(
            roots,
            tuple(map(vars, modules)),
            tuple(vars(module) for module in modules if isinstance(module, Packed)),
            [vars(module).get("_expansions") for module in modules if isinstance(module, Packed)],
            tuple(hooks for module in modules for hooks in (module._forward_pre_hooks, module._forward_hooks)),
            tuple(parent for parent, _, _ in links),
            tuple(name for _, name, _ in links),
            tuple(child for _, _, child in links),
            tuple(holder for holder, _, _ in held),
            tuple(key for _, key, _ in held),
            tensors,
            Derived.of(tuple(tensor for tensor in tensors if tensor is not None)),
        )

    def holds(self) -> bool:
        """Whether modules and tensors are the same, and the tensors unchanged as far as `Derived` sees it."""
        return (
            all(map(is_, map(dict.get, self.parents, self.names), self.children))
            and all(map(is_, map(dict.get, self.holders, self.keys), self.tensors))
            and self.derived.unchanged()
            and list(map(dict.get, self.packed, repeat("_expansions"))) == self.expansions
        )

    def why_not(self) -> str | None:
        """Why the modules must be called one by one, if they must: what may change from call to call."""
        if any(map(dict.get, self.attributes, repeat("training"))):
            return "a part of its encoder is in training mode: call model.eval()"
        if any(map(_is_foreign, filter(None, self.hooks))):
            return "a module inside its encoder has a forward hook"
        if any(map(dict.__contains__, self.attributes, repeat("forward"))):
            return "a module inside its encoder has a forward of its own, put on the instance"
        return None


def _is_foreign(hooks: dict[int, Any]) -> bool:
    return any(getattr(hook, "__module__", None) != _RECORDER for hook in hooks.values())


def unexpected_module(root: nn.Module, home: str) -> str | None:
    """The class of a module at or below `root` that contains others and is not of the Python module `home`.

    What is in the place of one of the model's own blocks may compute something else.
    """
    for module in root.modules():
        cls = type(module)
        plain = cls.__module__ == home or isinstance(module, nn.ModuleList | Packed)
        if module._modules and not plain:
            return cls.__name__
    return None
