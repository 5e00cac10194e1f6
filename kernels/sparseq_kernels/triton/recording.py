"""What an op launches for an input of one shape, recorded once and launched again for others like it.

On the host most of a call's time goes into what is the same each time: checks, plans, the facts by which a compiled
kernel is found. What differs is where x lies and where what is new lies.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from . import plans
from .device import Device, current
from .launch import Launched, current_stream, hooked, watching
from .runtime import interpreted

# Of memory, in bytes, by which Triton tells its kernels apart.
ALIGNMENT = 16


class _Step(NamedTuple):
    """A launch, as run(*args) with the values at `places` in args: (position, number of a value). descriptors: the same
    for descriptors of tiles, with what else they say."""

    run: Callable[..., Any]
    args: list[Any]
    places: list[tuple[int, int]]
    descriptors: list[tuple[int, int, TensorDescriptor]]


@dataclass(frozen=True)
class Recording:
    """The launches of one call of an op.

    What differs from call to call is numbered: 0 is x, 1 the stream, and from 2 on come the tensors that are made anew.
    new: of each of these, an empty tensor like it and its shape. result: the number of the one that is returned.
    device, index, forced: Triton's device, torch's number for it, and the plan in force, under which all this holds.
    """

    device: Device
    index: int
    forced: plans.Plan | None
    steps: tuple[_Step, ...]
    new: tuple[tuple[Tensor, tuple[int, ...]], ...]
    result: int

    def fits(self, x: Tensor) -> bool:
        """Whether x, of the recorded shape and dtype, may be given to `run` here and now."""
        return (
            x.is_contiguous()
            and x.data_ptr() % ALIGNMENT == 0
            and current() is self.device
            and x.get_device() == self.index
            and plans.forced() is self.forced
            and not hooked()
        )

    def run(self, x: Tensor) -> Tensor:
        values: list[Any] = [x, None if interpreted() else current_stream()]
        for like, shape in self.new:
            values.append(like.new_empty(*shape))
        for run, args, places, descriptors in self.steps:
            args = args.copy()
            for at, number in places:
                args[at] = values[number]
            for at, number, descriptor in descriptors:
                args[at] = _moved(descriptor, values[number])
            run(*args)
        result: Tensor = values[self.result]
        return result


def _moved(descriptor: TensorDescriptor, base: Tensor) -> TensorDescriptor:
    return TensorDescriptor(base, descriptor.shape, descriptor.strides, descriptor.block_shape)


def record(run: Callable[..., Tensor], x: Tensor, constants: Sequence[Any]) -> tuple[Tensor, Recording | None]:
    """(run(x, *constants), its recording), x being `laid_out`.

    The recording is None where a kernel was handed another tensor than x, the constants, and what `launch.empty` made,
    such as a copy of one of them: what is in it would not be made again. And where x is not on the current device.
    """
    with watching() as (launches, new):
        result = run(x, *constants)
    numbers = {_memory(tensor): number for number, tensor in enumerate(new, 2)} | {_memory(x): 0}
    kept = {_memory(constant) for constant in constants if isinstance(constant, Tensor)}
    handed = {_memory(tensor) for launched in launches for arg in launched.args if (tensor := _tensor(arg)) is not None}
    elsewhere = x.is_cuda and torch.cuda.current_device() != x.get_device()
    made = [number for number, tensor in enumerate(new, 2) if tensor is result]
    unknown = kept & numbers.keys() or handed - kept - numbers.keys()
    if elsewhere or unknown or not launches or not made or not all(map(laid_out, new)):
        return result, None
    steps = tuple(_step(launched, numbers) for launched in launches)
    likes = tuple((tensor.new_empty(0), tuple(tensor.shape)) for tensor in new)
    return result, Recording(current(), x.get_device(), plans.forced(), steps, likes, made[0])


def laid_out(x: Tensor) -> bool:
    """Whether x is as kernels like it best, without gaps and aligned."""
    return x.is_contiguous() and x.data_ptr() % ALIGNMENT == 0


def _step(launched: Launched, numbers: dict[int, int]) -> _Step:
    args = [*launched.before, *launched.args, *launched.after]
    places: list[tuple[int, int]] = [] if launched.stream is None else [(launched.stream, 1)]
    descriptors = []
    for at, arg in enumerate(args):
        tensor = _tensor(arg)
        number = None if tensor is None else numbers.get(_memory(tensor))
        if tensor is None or number is None:
            continue
        # What was recorded with is not kept.
        args[at] = None
        if isinstance(arg, TensorDescriptor):
            descriptors.append((at, number, _moved(arg, tensor.new_empty(0))))
        else:
            places.append((at, number))
    return _Step(launched.run, args, places, descriptors)


def _tensor(arg: Any) -> Tensor | None:
    """The tensor that an argument of a kernel is, or describes."""
    arg = arg.base if isinstance(arg, TensorDescriptor) else arg
    return arg if isinstance(arg, Tensor) else None


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
