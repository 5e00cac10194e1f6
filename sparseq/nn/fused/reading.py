"""What is read from a model's parts once, and anew when their modules or tensors change."""

from collections.abc import Callable, Sequence
from operator import is_
from typing import Any, NamedTuple

from torch import nn

from .watch import Watch


class UnfitError(Exception):
    """Why something does not run fused, as a clause that ends a sentence."""


class Reading(NamedTuple):
    """What was read from a module and those below, or why that cannot be used, as a string."""

    watch: Watch
    found: Any

    def now(self) -> Any:
        """What was read; why it cannot be used now, as a string."""
        if isinstance(self.found, str):
            return self.found
        reason = self.watch.why_not()
        return self.found if reason is None else reason


class Readings(NamedTuple):
    """What was read from several parts. watch: of all of them, for one look at all takes less than one at each."""

    watch: Watch
    each: tuple[Reading, ...]

    def now(self) -> tuple[Any, ...]:
        """What was read from each part; why it cannot be used now, as a string."""
        if self.watch.why_not() is None:
            return tuple([one.found for one in self.each])
        return tuple([one.now() for one in self.each])


def readings_of(
    known: Readings | None, roots: Sequence[nn.Module], read: Sequence[Callable[[nn.Module], Any]]
) -> Readings:
    """What `read` gives for each part, given its root: what is known already, where that has not changed.

    read: may raise UnfitError, and AttributeError where a module is built otherwise than it expects.
    """
    if known is None or len(known.each) != len(roots):
        each = tuple(map(_reading, roots, read))
    elif _hold(known.watch, roots):
        return known
    else:
        each = tuple(
            one if _hold(one.watch, (root,)) else _reading(root, reader)
            for one, root, reader in zip(known.each, roots, read, strict=True)
        )
    return Readings(Watch.of(*roots), each)


def _hold(watch: Watch, roots: Sequence[nn.Module]) -> bool:
    return all(map(is_, watch.roots, roots)) and watch.holds()


def _reading(root: nn.Module, read: Callable[[nn.Module], Any]) -> Reading:
    watch = Watch.of(root)
    return Reading(watch, _found(watch, root, read))


def _found(watch: Watch, root: nn.Module, read: Callable[[nn.Module], Any]) -> Any:
    if not watch.derived.watched:
        return "its tensors were made or moved in inference mode, or are of a subclass of Tensor"
    try:
        return read(root)
    except UnfitError as error:
        return str(error)
    except AttributeError as error:
        return f"it is built otherwise than this version of sparseq knows ({error})"
