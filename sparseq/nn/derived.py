"""Tensors that a layer derived from its own tensors, and the check whether these have changed since."""

from collections.abc import Sequence
from operator import attrgetter, is_
from typing import NamedTuple

from torch import Tensor, nn
from torch.compiler import is_compiling

PLAIN = (Tensor, nn.Parameter)
_version = attrgetter("_version")


class Derived(NamedTuple):
    """The state of `sources` at the time when something was derived from them.

    The tensors and their memory are kept alive, so that no other object can get the same identity or address.
    """

    sources: tuple[Tensor, ...]
    memory: tuple[Tensor, ...]
    addresses: tuple[int, ...]
    versions: tuple[int, ...]
    watched: bool

    @classmethod
    def of(cls, sources: tuple[Tensor, ...]) -> "Derived":
        # Inference tensors have no version counter, and fake tensors have no memory.
        if not all(type(source) in PLAIN and not source.is_inference() for source in sources):
            return cls(sources, (), (), (), watched=False)
        addresses, versions = tuple(map(Tensor.data_ptr, sources)), tuple(map(_version, sources))
        return cls(sources, tuple(source.detach() for source in sources), addresses, versions, watched=True)

    def holds(self, sources: Sequence[Tensor]) -> bool:
        """Whether these are the same tensors, with the same memory, unchanged according to their version counters.

        A write through `.data`, or to memory shared with another library, does not change the version counter and is
        not seen.
        """
        if is_compiling():  # Neither is known while tracing; a trace is valid for these objects.
            return all(map(is_, self.sources, sources))
        return all(map(is_, self.sources, sources)) and self.unchanged()

    def unchanged(self) -> bool:
        """`holds` of its own sources, while nothing is compiled."""
        return (
            self.watched
            and tuple(map(Tensor.data_ptr, self.sources)) == self.addresses
            and tuple(map(_version, self.sources)) == self.versions
        )
