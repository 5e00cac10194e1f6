"""How kernels are launched: through Triton's own `kernel[grid](...)` the first time, and from then on from the
compiled kernel itself, which takes a tenth of the time on the host.

Triton compiles a kernel anew for each type of its arguments and for some facts of them: whether a pointer is aligned to
16 bytes, and of an integer whether it is 1, divisible by 16, or beyond 32 bits. A compiled kernel is found again here
by no less than these. On AMD the rule has more to it, and every launch goes Triton's own way.
"""

import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from triton import knobs
from triton.tools.tensor_descriptor import TensorDescriptor

from .device import current_and_stream

# No multiplication fuses with the addition after it, so that outputs in fp32 are the reference's to the bit.
OPTIONS = {"enable_fp_fusion": False}

Grid = tuple[int, int, int]
MOST_REMEMBERED = 1 << 14
_compiled: dict[tuple[Any, ...], Any] = {}


class Launched(NamedTuple):
    """A launch that was made, to be made again as run(*before, *args, *after), `args` being the kernel's tensors and
    integers. stream: where the stream goes in `before`, if anywhere."""

    run: Callable[..., Any]
    before: tuple[Any, ...]
    args: tuple[Any, ...]
    after: tuple[Any, ...]
    stream: int | None


@dataclass
class Watched:
    """What was launched, and the tensors that `empty` made. whole: whether all launches are known."""

    launches: list[Launched] = field(default_factory=list)
    new: list[Tensor] = field(default_factory=list)
    whole: bool = True


class _Watching(threading.local):
    watched: Watched | None = None


_watching = _Watching()


@contextmanager
def watching() -> Iterator[Watched]:
    """What this thread does by `launch` and `empty` within a `with` block."""
    before, found = _watching.watched, Watched()
    _watching.watched = found
    try:
        yield found
    finally:
        _watching.watched = before


def empty(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """torch.empty, for what an op's launches write: whole tensors, handed to kernels from their beginning. An op that
    hands its kernels memory made otherwise is not recorded (`recording`)."""
    tensor = torch.empty(shape, dtype=dtype, device=device)
    if _watching.watched is not None:
        _watching.watched.new.append(tensor)
    return tensor


def launch(kernel: Any, grid: Grid, args: tuple[Any, ...], constants: tuple[Any, ...], warps: int, stages: int) -> Any:
    """Runs `kernel` on `grid`, with `args` (tensors, integers, None) and then `constants` (the kernel's constexpr
    parameters) by position. Returns the compiled kernel; under the interpreter None."""
    device, stream = current_and_stream()
    if stream is None:
        return _tritons_way(kernel[grid], args, constants)
    options = {"num_warps": warps, "num_stages": stages, **OPTIONS}
    if device.amd:
        return _tritons_way(functools.partial(kernel[grid], **options), args, constants)
    facts = [a if a.__class__ in _AS_THEY_ARE else _fact(a) for a in args]
    key = (id(kernel), device, warps, stages, constants, *facts)
    compiled = _compiled.get(key)
    if compiled is None:
        compiled = kernel[grid](*args, *constants, **options)
        if compiled is None:  # A hook of Triton's wants none, as where kernels are only listed.
            if _watching.watched is not None:
                _watching.watched.whole = False
            return None
        if len(_compiled) >= MOST_REMEMBERED:  # There is one for each number of rows that was met.
            _compiled.clear()
        _compiled[key] = compiled
    elif hooked():
        compiled[grid](*args, *constants)
    else:
        compiled.run(*_before(compiled, grid, stream), *args, *constants)
    if _watching.watched is not None:
        before = _before(compiled, grid, None)
        _watching.watched.launches.append(Launched(compiled.run, before, args, constants, len(grid)))
    return compiled


def _before(compiled: Any, grid: Grid, stream: Any) -> tuple[Any, ...]:
    """What `compiled[grid]` hands on before the kernel's arguments, where no profiler asks for more."""
    return (*grid, stream, compiled.function, compiled.packed_metadata, None, None, None)


def _tritons_way(run: Callable[..., Any], args: tuple[Any, ...], constants: tuple[Any, ...]) -> Any:
    if _watching.watched is not None:
        _watching.watched.launches.append(Launched(run, (), args, constants, None))
    return run(*args, *constants)


def hooked() -> bool:
    """Whether anything is to be called at launches, such as a profiler's: a chain of hooks may be empty."""
    enter, leave = knobs.runtime.launch_enter_hook, knobs.runtime.launch_exit_hook
    return bool(getattr(enter, "calls", enter) or getattr(leave, "calls", leave))


_AS_THEY_ARE = frozenset((int, float, type(None)))


def _fact(argument: Any) -> Any:
    """What of a tensor or a descriptor a compiled kernel depends on, or more."""
    if isinstance(argument, TensorDescriptor):
        return argument.base.dtype, tuple(argument.block_shape)
    return argument.dtype, argument.data_ptr() & 15


def on(tensor: Tensor) -> Any:
    """A context in which the device of `tensor` is the current one, on which Triton launches."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else _Nothing


class _NothingType:
    def __enter__(self) -> None: ...

    def __exit__(self, *unused: object) -> None: ...


_Nothing = _NothingType()
