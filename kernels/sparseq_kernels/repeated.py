"""Calls of an op that a layer makes again and again, with the same weights."""

from collections.abc import Callable
from operator import attrgetter, is_
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from . import backends
from .looks import nothing_looks_on, plain
from .ops import RUN
from .transforms import call

# Shapes of x that a layer's calls are recorded for; further ones are called as any op is.
MOST_RECORDED = 128
_any_autocast = torch._C._is_any_autocast_enabled
_gradients = torch.is_grad_enabled
_address = Tensor.data_ptr
_wants_gradient = attrgetter("requires_grad")


class Recording(Protocol):
    """A call that can be made again."""

    def run(self, x: Tensor) -> Tensor | None:
        """The op's result for x, of the recorded shape and dtype; None where the op must be called."""


def _recorder(backend: str, op: str) -> Callable[..., tuple[Tensor, Recording | None]] | None:
    """What records a call of the op; None where nothing does."""
    if backend == "native" and op == "int8_linear":
        from .cpu.recording import record as record_native

        return record_native
    return None


# Ops of packed layers, for which Triton's backend has a cache of its own.
LAUNCH_CACHED = ("int8_linear", "block_sparse_int8_linear", "bitmask_int8_linear", "semi_structured_int8_linear")


class _LaunchCached(NamedTuple):
    """A call that Triton's launch cache makes again."""

    op: str
    constants: tuple[Any, ...]

    def run(self, x: Tensor) -> Tensor:
        from .triton.runtime.launch_cache import cached

        result: Tensor = cached(self.op, RUN[self.op], (x, *self.constants))
        return result


class _Recorded(NamedTuple):
    """What was recorded with these constants, under that forced backend, by op and x's shape and dtype."""

    forced: str | None
    constants: tuple[Any, ...]
    # Of those that are tensors: themselves, where their memory was, and that memory, kept so that no other takes its
    # place.
    tensors: tuple[Tensor, ...]
    addresses: list[int]
    memory: tuple[Tensor, ...]
    recordings: dict[tuple[Any, ...], Recording]

    @classmethod
    def of(cls, forced: str | None, constants: tuple[Any, ...]) -> "_Recorded":
        tensors = tuple(constant for constant in constants if isinstance(constant, Tensor))
        memory = tuple(tensor.detach() for tensor in tensors)
        return cls(forced, constants, tensors, list(map(_address, tensors)), memory, {})


class Repeated:
    """`call` of ops in inference, fast on the host where little differs from call to call.

    A call for x of a shape and dtype that it met before does for the new x what was done then, in native code
    (`cpu.recording`), if `constants` are the same objects, in the same memory. Their values may have changed in place.
    Triton's backend has a cache of its own for that (`triton.runtime.launch_cache`). Any other call is
    `transforms.call`, such as one that a gradient is wanted of. The constants of the last recording and their memory
    are kept alive, until others come. A copy begins without what was recorded.
    """

    def __init__(self) -> None:
        self._recorded = _Recorded.of(None, ())

    def __reduce__(self) -> tuple[Any, ...]:
        return Repeated, ()

    def __call__(self, op: str, x: Tensor, *constants: Any) -> Tensor:
        """The (first) result of op(x, *constants)."""
        # Something looks on, or a gradient is wanted: that is not for here.
        unusual = type(x) is not Tensor or x.is_neg() or x._is_zerotensor() or _any_autocast() or not nothing_looks_on()
        # Taken once: another thread may put another in its place.
        recorded = self._recorded
        forced, known, tensors, addresses, _, recordings = recorded
        if unusual or (_gradients() and (x.requires_grad or any(map(_wants_gradient, tensors)))):
            return call(op, x, *constants)
        same = (
            forced is backends.forced()
            and len(known) == len(constants)
            and all(map(is_, known, constants))
            and list(map(_address, tensors)) == addresses
        )
        recording = recordings.get((op, x.shape, x.dtype)) if same else None
        if recording is None:
            return self._record(op, x, constants, recorded if same else None)
        result = recording.run(x)
        return call(op, x, *constants) if result is None else result

    def _record(self, op: str, x: Tensor, constants: tuple[Any, ...], recorded: _Recorded | None) -> Tensor:
        """As `__call__`, and adds the call to what was `recorded` with these constants, if anything was."""
        if (recorded is not None and len(recorded.recordings) >= MOST_RECORDED) or not (
            plain((x, *constants))
            and not (_gradients() and any(isinstance(c, Tensor) and c.requires_grad for c in constants))
        ):
            return call(op, x, *constants)
        backend = backends.backend(x.device.type)
        if backend == "triton" and op in LAUNCH_CACHED:
            recording: Recording | None = _LaunchCached(op, constants)
            result = _LaunchCached(op, constants).run(x)
        elif (record := _recorder(backend, op)) is not None:
            result, recording = record(RUN[op], x, constants)
        else:
            return call(op, x, *constants)
        if recording is not None:
            if recorded is None:
                self._recorded = recorded = _Recorded.of(backends.forced(), constants)
            recorded.recordings[op, x.shape, x.dtype] = recording
        return result
