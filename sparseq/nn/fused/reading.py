"""What is read from a model's parts once, and anew when their modules or tensors change."""

from collections.abc import Callable, Sequence
from operator import is_
from typing import Any, NamedTuple

from torch import nn

from .watch import Watch

# From a model and the root of one of its parts: what is read from that.
Reader = Callable[[Any, nn.Module], Any]


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


def readings_of(model: Any, known: Readings | None, roots: Sequence[nn.Module], read: Sequence[Reader]) -> Readings:
    """What `read` gives for each part of a model: what is known already, where that has not changed.

    read: may raise UnfitError, and AttributeError where a module is built otherwise than it expects. It may have
    readers of more parts than there are.
    """
    if known is not None and _hold(known.watch, roots):
        return known
    olds = dict(enumerate(known.each)) if known is not None else {}
    each = []
    for number, (root, reader) in enumerate(zip(roots, read, strict=False)):
        old = olds.get(number)
        each.append(old if old is not None and _hold(old.watch, (root,)) else _reading(model, root, reader))
    return Readings(Watch.of(*roots), tuple(each))


def _hold(watch: Watch, roots: Sequence[nn.Module]) -> bool:
    return len(watch.roots) == len(roots) and all(map(is_, watch.roots, roots)) and watch.holds()


def _reading(model: Any, root: nn.Module, read: Reader) -> Reading:
    watch = Watch.of(root)
    return Reading(watch, _found(watch, model, root, read))


def _found(watch: Watch, model: Any, root: nn.Module, read: Reader) -> Any:
    if not watch.derived.watched:
        if any(source.is_inference() for source in watch.derived.sources):
            return "its tensors were copied in inference mode: do that outside of torch.inference_mode()"
        return "its tensors are of a subclass of Tensor"
    try:
        return read(model, root)
    except UnfitError as error:
        return str(error)
    except AttributeError as error:
        return f"it is built otherwise than this version of sparseq knows ({error})"
