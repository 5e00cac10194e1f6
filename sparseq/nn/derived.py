"""What a layer made of its tensors for its own arithmetic, and whether they still are what it was made of."""

from collections.abc import Sequence
from operator import attrgetter, is_
from typing import NamedTuple

from torch import Tensor, nn
from torch.compiler import is_compiling

PLAIN = (Tensor, nn.Parameter)
_version = attrgetter("_version")


class Derived(NamedTuple):
    """The state of `sources` when something was made of them. They are kept alive, and so is their memory: neither an
    object nor an address can be another's while this is here."""

    sources: tuple[Tensor, ...]
    memory: tuple[Tensor, ...]
    addresses: tuple[int, ...]
    versions: tuple[int, ...]
    watched: bool

    @classmethod
    def of(cls, sources: tuple[Tensor, ...]) -> "Derived":
        # A tensor of inference mode counts no changes, and a faked one has no memory.
        if not all(type(source) in PLAIN and not source.is_inference() for source in sources):
            return cls(sources, (), (), (), watched=False)
        addresses, versions = tuple(map(Tensor.data_ptr, sources)), tuple(map(_version, sources))
        return cls(sources, tuple(source.detach() for source in sources), addresses, versions, watched=True)

    def holds(self, sources: Sequence[Tensor]) -> bool:
        """Whether these are the same tensors, with the same memory, and unchanged as far as torch counts changes: one
        that is written to by way of `.data`, or of memory shared with another library, is not seen to change."""
        if is_compiling():  # Of a traced tensor neither is known; the trace is for these objects.
            return all(map(is_, self.sources, sources))
        return (
            self.watched
            and all(map(is_, self.sources, sources))
            and tuple(map(Tensor.data_ptr, sources)) == self.addresses
            and tuple(map(_version, sources)) == self.versions
        )
