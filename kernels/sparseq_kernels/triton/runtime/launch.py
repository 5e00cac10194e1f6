"""Launches kernels, and captures what is launched.

The first launch goes through Triton's own `kernel[grid](...)`. Later ones call the compiled kernel, which takes a tenth
of the time on the host. Triton compiles a kernel anew for each type of its arguments and for some of their properties:
whether a pointer is aligned to 16 bytes, and whether an integer is 1, divisible by 16, or beyond 32 bits. The key by
which a compiled kernel is found here has at least these. On AMD Triton's rule has more to it, and every launch goes
Triton's own way.
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


class CapturedLaunch(NamedTuple):
    """A launch, to be repeated as run(*before, *args, *after).

    args: the kernel's tensors and integers. stream: the place of the stream in `before`; None where it has none.
    """

    run: Callable[..., Any]
    before: tuple[Any, ...]
    args: tuple[Any, ...]
    after: tuple[Any, ...]
    stream: int | None


@dataclass
class Capture:
    """The launches of a thread, and the tensors that `empty` allocated. complete: whether all launches are known."""

    launches: list[CapturedLaunch] = field(default_factory=list)
    allocated: list[Tensor] = field(default_factory=list)
    complete: bool = True


class _Thread(threading.local):
    capture: Capture | None = None


_thread = _Thread()


@contextmanager
def capturing() -> Iterator[Capture]:
    """Captures what this thread does by `launch` and `empty` within a `with` block."""
    before, capture = _thread.capture, Capture()
    _thread.capture = capture
    try:
        yield capture
    finally:
        _thread.capture = before


def empty(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """torch.empty, for what an op's launches write.

    An op whose kernels get memory that was allocated otherwise cannot be replayed (`launch_cache`); nor can one that
    gives a kernel a part of such a tensor. Torch's operators must not write to it: a replay launches kernels alone.
    """
    tensor = torch.empty(shape, dtype=dtype, device=device)
    if _thread.capture is not None:
        _thread.capture.allocated.append(tensor)
    return tensor


def launch(
    kernel: Any,
    grid: Grid,
    args: tuple[Any, ...],
    constants: tuple[Any, ...],
    num_warps: int,
    num_stages: int,
    dependent: bool = False,
) -> Any:
    """Launches `kernel` on `grid`. Returns the compiled kernel; under the interpreter None.

    args: the kernel's tensors, integers and None, by position. constants: its constexpr parameters, which follow.
    dependent: whether it may begin before the kernel launched before it has ended (programmatic dependent launch). The
    kernel must then call `gdc_wait` before it reads or writes memory. Needs `Device.dependent_launch`.
    """
    device, stream = current_and_stream()
    if stream is None:
        return _launch_by_triton(kernel[grid], args, constants)
    options = {"num_warps": num_warps, "num_stages": num_stages, **OPTIONS}
    if dependent:
        options["launch_pdl"] = True
    if device.amd:
        return _launch_by_triton(functools.partial(kernel[grid], **options), args, constants)
    properties = [a if a.__class__ in _SPECIALIZED_BY_VALUE else _properties(a) for a in args]
    key = (id(kernel), device, num_warps, num_stages, dependent, constants, *properties)
    compiled = _compiled.get(key)
    if compiled is None:
        compiled = kernel[grid](*args, *constants, **options)
        if compiled is None:  # A hook of Triton's prevented the launch, as where kernels are only listed.
            if _thread.capture is not None:
                _thread.capture.complete = False
            return None
        if len(_compiled) >= MOST_REMEMBERED:  # Each number of rows that was met has an entry.
            _compiled.clear()
        _compiled[key] = compiled
    elif hooked():
        compiled[grid](*args, *constants)
    else:
        compiled.run(*_before(compiled, grid, stream), *args, *constants)
    if _thread.capture is not None:
        before = _before(compiled, grid, None)
        _thread.capture.launches.append(CapturedLaunch(compiled.run, before, args, constants, len(grid)))
    return compiled


def _before(compiled: Any, grid: Grid, stream: Any) -> tuple[Any, ...]:
    """The arguments that `compiled[grid]` passes before the kernel's own, without hooks of a profiler."""
    return (*grid, stream, compiled.function, compiled.packed_metadata, None, None, None)


def _launch_by_triton(run: Callable[..., Any], args: tuple[Any, ...], constants: tuple[Any, ...]) -> Any:
    if _thread.capture is not None:
        _thread.capture.launches.append(CapturedLaunch(run, (), args, constants, None))
    return run(*args, *constants)


def hooked() -> bool:
    """Whether hooks are to be called at launches, such as a profiler's. A chain of hooks may be empty."""
    enter, leave = knobs.runtime.launch_enter_hook, knobs.runtime.launch_exit_hook
    return bool(getattr(enter, "calls", enter) or getattr(leave, "calls", leave))


_SPECIALIZED_BY_VALUE = frozenset((int, float, type(None)))


def _properties(argument: Any) -> Any:
    """The properties of a tensor or a descriptor that a compiled kernel depends on, or more."""
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
