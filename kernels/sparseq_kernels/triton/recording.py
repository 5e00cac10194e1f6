"""What an op launches for an input of one shape, recorded once and launched again for others like it.

On the host most of a call's time goes into what is the same each time: checks, plans, the facts by which a compiled
kernel is found. What differs is where x lies and where what is new lies.
"""

import itertools
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from . import plans
from .device import Device, current, current_and_stream
from .launch import Launched, hooked, watching

# Of memory, in bytes: by which Triton tells its kernels apart, and what lies apart in a call's scratch memory.
ALIGNMENT, APART = 16, 256


class _Step(NamedTuple):
    """A launch, as run(*pick(values)) of all that is numbered."""

    run: Callable[..., Any]
    pick: Callable[[list[Any]], tuple[Any, ...]]


@dataclass(frozen=True)
class Recording:
    """The launches of one call of an op.

    What its kernels get is numbered: 0 is x, 1 the stream, 2 the result, and from 3 on come the other tensors that are
    made anew, and then what is `fixed`. descriptors: of these the ones that describe a tensor made anew, as (number,
    number of the tensor). device, index, forced: Triton's device, torch's number for it, and the plan in force, under
    which all this holds. result: an empty tensor like it, and its shape. scratch: the same of each of the others, where
    they are handed to kernels as tensors. offsets, memory: where they begin in memory that is made for all of them at
    once, an empty tensor like that and its size, where kernels get addresses, which a launch has less to do with.
    """

    device: Device
    index: int
    forced: plans.Plan | None
    steps: tuple[_Step, ...]
    fixed: tuple[Any, ...]
    descriptors: tuple[tuple[int, int], ...]
    result: tuple[Tensor, tuple[int, ...]]
    scratch: tuple[tuple[Tensor, tuple[int, ...]], ...]
    offsets: tuple[int, ...] | None
    memory: tuple[Tensor, int]

    def run(self, x: Tensor) -> Tensor | None:
        """The op's result for x, of the recorded shape and dtype; None where what was recorded does not hold for how it
        lies, or does not hold any more."""
        at, (device, stream) = x.data_ptr(), current_and_stream()
        if (
            at % ALIGNMENT
            or not x.is_contiguous()
            or device is not self.device
            or x.get_device() != self.index
            or plans.forced() is not self.forced
            or hooked()
        ):
            return None
        like, shape = self.result
        result = like.new_empty(*shape)
        values: list[Any]
        if self.offsets is None:
            scratch = [like.new_empty(*shape) for like, shape in self.scratch]
            values = [x, stream, result, *scratch, *self.fixed]
            for number, base in self.descriptors:
                values[number] = _moved(values[number], values[base])
        elif self.offsets:
            like, size = self.memory
            memory = like.new_empty(size)
            start = memory.data_ptr()
            values = [at, stream, result.data_ptr(), *[start + offset for offset in self.offsets], *self.fixed]
        else:
            values = [at, stream, result.data_ptr(), *self.fixed]
        for run, pick in self.steps:
            run(*pick(values))
        return result


def _moved(descriptor: TensorDescriptor, base: Tensor) -> TensorDescriptor:
    return TensorDescriptor(base, descriptor.shape, descriptor.strides, descriptor.block_shape)


def record(run: Callable[..., Tensor], x: Tensor, constants: Sequence[Any]) -> tuple[Tensor, Recording | None]:
    """(run(x, *constants), its recording), x being `laid_out`.

    The recording is None where a kernel was handed another tensor than x, the constants, and what `launch.empty` made,
    such as a copy of one of them: what is in it would not be made again. And where x is not on the current device.
    """
    with watching() as watched:
        result = run(x, *constants)
    launches, made = watched.launches, watched.new
    scratch = [tensor for tensor in made if tensor is not result]
    numbers = _Numbers(x, [result, *scratch])
    kept = {_memory(constant) for constant in constants if isinstance(constant, Tensor)}
    handed = {_memory(tensor) for launched in launches for arg in launched.args if (tensor := _tensor(arg)) is not None}
    elsewhere = x.is_cuda and torch.cuda.current_device() != x.get_device()
    unknown = kept & numbers.new.keys() or handed - kept - numbers.new.keys()
    if (
        elsewhere
        or unknown
        or not launches
        or not watched.whole
        or len(scratch) == len(made)
        or not all(map(laid_out, made))
    ):
        return result, None
    steps = tuple(_Step(launched.run, operator.itemgetter(*numbers.of_launch(launched))) for launched in launches)
    addresses = all(launched.stream is not None for launched in launches) and not numbers.descriptors
    ends = [0, *itertools.accumulate(-(-tensor.nbytes // APART) * APART for tensor in scratch)]
    return result, Recording(
        current(),
        x.get_device(),
        plans.forced(),
        steps,
        tuple(numbers.fixed),
        tuple(numbers.descriptors),
        _like(result),
        tuple(map(_like, scratch)),
        tuple(ends[:-1]) if addresses else None,
        (x.new_empty(0, dtype=torch.int8), ends[-1]),
    )


class _Numbers:
    """The numbers of what kernels get, as `Recording` has them. new: of a tensor that is not fixed, by its memory."""

    def __init__(self, x: Tensor, made: Sequence[Tensor]) -> None:
        self.new = {_memory(tensor): number for number, tensor in enumerate(made, 2)} | {_memory(x): 0}
        self.fixed: list[Any] = []
        self.descriptors: list[tuple[int, int]] = []
        self._first_fixed = 2 + len(made)

    def of_launch(self, launched: Launched) -> list[int]:
        args = (*launched.before, *launched.args, *launched.after)
        return [1 if place == launched.stream else self._of(arg) for place, arg in enumerate(args)]

    def _of(self, arg: Any) -> int:
        tensor = _tensor(arg)
        number = None if tensor is None else self.new.get(_memory(tensor))
        if tensor is not None and number is not None:
            if tensor is arg:
                return number
            # Without the memory that was recorded with: it is not to be kept.
            self.descriptors.append((self._first_fixed + len(self.fixed), number))
            arg = _moved(arg, tensor.new_empty(0))
        self.fixed.append(arg)
        return self._first_fixed + len(self.fixed) - 1


def _like(tensor: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    return tensor.new_empty(0), tuple(tensor.shape)


def laid_out(x: Tensor) -> bool:
    """Whether x is as kernels like it best, without gaps and aligned."""
    return x.is_contiguous() and x.data_ptr() % ALIGNMENT == 0


def _tensor(arg: Any) -> Tensor | None:
    """The tensor that an argument of a kernel is, or describes."""
    arg = arg.base if isinstance(arg, TensorDescriptor) else arg
    return arg if isinstance(arg, Tensor) else None


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
