"""Whether an encoder's modules and tensors are still those that something was read from, in a few microseconds."""

from dataclasses import dataclass
from itertools import repeat
from typing import Any

from torch import nn

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
    # The dictionaries that hold submodules and tensors, and what was in each.
    holders: list[dict[str, Any]]
    held: list[dict[str, Any]]
    derived: Derived

    @classmethod
    def of(cls, *roots: nn.Module) -> "Watch":
        modules = list(dict.fromkeys(module for root in roots for module in root.modules()))
        holding_tensors: list[dict[str, Any]] = [
            holder for module in modules for holder in (module._parameters, module._buffers) if holder
        ]
        holders = [module._modules for module in modules if module._modules] + holding_tensors
        tensors = (tensor for holder in holding_tensors for tensor in holder.values() if tensor is not None)
        return cls(
            roots,
            tuple(map(vars, modules)),
            tuple(vars(module) for module in modules if isinstance(module, Packed)),
            [vars(module).get("_expansions") for module in modules if isinstance(module, Packed)],
            tuple(hooks for module in modules for hooks in (module._forward_pre_hooks, module._forward_hooks)),
            holders,
            [dict(holder) for holder in holders],
            Derived.of(tuple(tensors)),
        )

    def holds(self) -> bool:
        """Whether modules and tensors are the same, and the tensors unchanged as far as `Derived` sees it."""
        return (
            self._same()
            and self.derived.unchanged()
            and list(map(dict.get, self.packed, repeat("_expansions"))) == self.expansions
        )

    def _same(self) -> bool:
        """Whether the dictionaries hold the same objects, or tensors of one element with the same value."""
        # For another object in the place of one, dictionaries ask whether they are equal. The answer of tensors is a
        # tensor, which has no truth unless it is of one element.
        try:
            return self.holders == self.held
        except Exception:
            return False

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
