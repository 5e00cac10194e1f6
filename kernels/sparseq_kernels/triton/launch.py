"""How kernels are launched: through Triton's own `kernel[grid](...)` the first time, and from then on from the
compiled kernel itself, which takes a tenth of the time on the host.

Triton compiles a kernel anew for each type of its arguments and for some facts of them: whether a pointer is aligned to
16 bytes, and of an integer whether it is 1, divisible by 16, or beyond 32 bits. A compiled kernel is found again here
by no less than these. On AMD the rule has more to it, and every launch goes Triton's own way.
"""

from typing import Any

import torch
from torch import Tensor
from triton import knobs
from triton.runtime import driver
from triton.tools.tensor_descriptor import TensorDescriptor

from .device import current
from .runtime import interpreted

# No multiplication fuses with the addition after it, so that outputs in fp32 are the reference's to the bit.
OPTIONS = {"enable_fp_fusion": False}

Grid = tuple[int, int, int]
MOST_REMEMBERED = 1 << 14
_compiled: dict[tuple[Any, ...], Any] = {}


def launch(kernel: Any, grid: Grid, args: tuple[Any, ...], constants: tuple[Any, ...], warps: int, stages: int) -> Any:
    """Runs `kernel` on `grid`, with `args` (tensors, integers, None) and then `constants` (the kernel's constexpr
    parameters) by position. Returns the compiled kernel; under the interpreter None."""
    if interpreted():
        kernel[grid](*args, *constants)
        return None
    device = current()
    if device.amd:
        return kernel[grid](*args, *constants, num_warps=warps, num_stages=stages, **OPTIONS)
    facts = [a if a.__class__ in _AS_THEY_ARE else _fact(a) for a in args]
    key = (id(kernel), device, warps, stages, constants, *facts)
    compiled = _compiled.get(key)
    if compiled is None:
        compiled = kernel[grid](*args, *constants, num_warps=warps, num_stages=stages, **OPTIONS)
        if compiled is None:  # A hook of Triton's wants none, as where kernels are only listed.
            return None
        if len(_compiled) >= MOST_REMEMBERED:  # There is one for each number of rows that was met.
            _compiled.clear()
        _compiled[key] = compiled
    elif _hooked(knobs.runtime.launch_enter_hook) or _hooked(knobs.runtime.launch_exit_hook):
        compiled[grid](*args, *constants)
    else:
        stream = driver.active.get_current_stream(driver.active.get_current_device())
        # What `compiled[grid]` comes to, where no profiler asks for the launch's description.
        how = (stream, compiled.function, compiled.packed_metadata, None, None, None)
        compiled.run(*grid, *how, *args, *constants)
    return compiled


_AS_THEY_ARE = frozenset((int, float, type(None)))


def _fact(argument: Any) -> Any:
    """What of a tensor or a descriptor a compiled kernel depends on, or more."""
    if isinstance(argument, TensorDescriptor):
        return argument.base.dtype, tuple(argument.block_shape)
    return argument.dtype, argument.data_ptr() & 15


def _hooked(hook: Any) -> bool:
    """Whether anything is to be called: a chain of hooks may be empty."""
    return hook is not None and bool(getattr(hook, "calls", True))


def on(tensor: Tensor) -> Any:
    """A context in which the device of `tensor` is the current one, on which Triton launches."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else _Nothing


class _NothingType:
    def __enter__(self) -> None: ...

    def __exit__(self, *unused: object) -> None: ...


_Nothing = _NothingType()
