"""What is read from a module once, and anew when the module or its tensors change."""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import nn

from .watch import Watch


class UnfitError(Exception):
    """Why something does not run fused, as a clause that ends a sentence."""


class Reading(NamedTuple):
    """What was read, or why it cannot be used, as a string; and what this is valid for."""

    watch: Watch
    found: Any

    def now(self) -> Any:
        """What was read; why it cannot be used now, as a string."""
        if isinstance(self.found, str):
            return self.found
        reason = self.watch.why_not()
        return self.found if reason is None else reason


def reading_of(owner: Any, name: str, root: nn.Module, read: Callable[[], Any]) -> Reading:
    """What `read` gives for the modules from `root` on, kept in the owner's attribute `name` until one of them changes.

    read: may raise UnfitError, and AttributeError where a module is built otherwise than it expects.
    """
    known: Reading | None = getattr(owner, name)
    if known is None or known.watch.root is not root or not known.watch.holds():
        watch = Watch.of(root)
        known = Reading(watch, _found(watch, read))
        setattr(owner, name, known)
    return known


def _found(watch: Watch, read: Callable[[], Any]) -> Any:
    if not watch.derived.watched:
        return "its tensors were made or moved in inference mode, or are of a subclass of Tensor"
    try:
        return read()
    except UnfitError as error:
        return str(error)
    except AttributeError as error:
        return f"it is built otherwise than this version of sparseq knows ({error})"
