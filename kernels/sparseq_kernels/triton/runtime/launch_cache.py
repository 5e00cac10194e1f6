"""What an op launches for an input of one shape, recorded once and launched again for others like it.

On the host most of a call's time goes into what is the same each time: checks, configs, the facts by which a compiled
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

from .device import Device, current, current_and_stream
from .gemm_config import GemmConfig, forced_config
from .launch import CapturedLaunch, capturing, hooked

# Of memory, in bytes: by which Triton tells its kernels apart, and what lies apart in a call's scratch memory.
ALIGNMENT, APART = 16, 256

# An empty tensor like one that is made anew, and its shape.
Like = tuple[Tensor, tuple[int, ...]]


class _Step(NamedTuple):
    """A launch, as run(*pick(values)) of all that is numbered."""

    run: Callable[..., Any]
    pick: Callable[[list[Any]], tuple[Any, ...]]


@dataclass(frozen=True)
class Recording:
    """The launches of one call of an op.

    What its kernels get is numbered: 0 is x, 1 the stream, 2 the result, and from 3 on comes the scratch that is made
    anew, and then what is `fixed`. Kernels get the first of these as addresses, with which a launch has less to do, and
    scratch is one piece of memory; but as tensors where `tensors` is not None.

    device, index, forced: Triton's device, torch's number for it, and the config in force, under which all this holds.
    result: an empty tensor like it, and its shape. offsets: where the scratch of each number begins. memory: an empty
    tensor like all of it, and its bytes. tensors: of each scratch an empty tensor like it, and its shape. descriptors:
    (number, number of the tensor) of the fixed ones that describe a tensor made anew.
    """

    device: Device
    index: int
    forced: GemmConfig | None
    steps: tuple[_Step, ...]
    fixed: tuple[Any, ...]
    result: Like
    offsets: tuple[int, ...]
    memory: tuple[Tensor, int]
    tensors: tuple[Like, ...] | None
    descriptors: tuple[tuple[int, int], ...]

    def run(self, x: Tensor) -> Tensor | None:
        """The op's result for x, of the recorded shape and dtype; None where what was recorded does not hold for how it
        lies, or does not hold any more."""
        at, (device, stream) = x.data_ptr(), current_and_stream()
        if (
            at % ALIGNMENT
            or not x.is_contiguous()
            or device is not self.device
            or x.get_device() != self.index
            or forced_config() is not self.forced
            or hooked()
        ):
            return None
        like, shape = self.result
        result = like.new_empty(*shape)
        values: list[Any]
        if self.tensors is not None:
            scratch = [like.new_empty(*shape) for like, shape in self.tensors]
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


def record(run: Callable[..., Any], x: Tensor, constants: Sequence[Any]) -> tuple[Tensor, Recording | None]:
    """(the first result of run(x, *constants), the recording of this call).

    The recording is None where the call cannot be made again from it: x or what was made has gaps, or is not aligned; x
    is not on the current device; a kernel was handed another tensor than x, the constants, and what `launch.empty`
    made, such as a copy of a constant, whose values would not be copied again; there was nothing to launch, or not all
    that was launched is known; or the op has more results than one.
    """
    with capturing() as watched:
        result = run(x, *constants)
    launches, made = watched.launches, watched.allocated
    if not isinstance(result, Tensor):
        return result[0], None
    scratch = [tensor for tensor in made if tensor is not result]
    result_made = len(scratch) < len(made) and result.dim() > 0
    here = not x.is_cuda or torch.cuda.current_device() == x.get_device()
    numbers = _Numbers(x, [result, *scratch], constants)
    known = watched.complete and numbers.apart and all(numbers.knows(arg) for one in launches for arg in one.args)
    if not (launches and known and result_made and here and all(map(_laid_out, (x, *made)))):
        return result, None
    steps = tuple(_Step(launched.run, operator.itemgetter(*numbers.of_launch(launched))) for launched in launches)
    by_address = all(launched.stream is not None for launched in launches) and not numbers.descriptors
    ends = [0, *itertools.accumulate(-(-tensor.nbytes // APART) * APART for tensor in scratch)]
    return result, Recording(
        current(),
        x.get_device(),
        forced_config(),
        steps,
        tuple(numbers.fixed),
        _like(result),
        tuple(ends[:-1]),
        (x.new_empty(0, dtype=torch.int8), ends[-1]),
        None if by_address else tuple(map(_like, scratch)),
        tuple(numbers.descriptors),
    )


class _Numbers:
    """The numbers of what kernels get, as `Recording` has them."""

    def __init__(self, x: Tensor, made: Sequence[Tensor], constants: Sequence[Any]) -> None:
        self.fixed: list[Any] = []
        self.descriptors: list[tuple[int, int]] = []
        self._first_fixed = 2 + len(made)
        self._constants = [constant for constant in constants if isinstance(constant, Tensor)]
        # Of what begins where x or a new tensor does.
        self._new = {tensor.data_ptr(): number for number, tensor in enumerate(made, 2)} | {x.data_ptr(): 0}
        # With a constant in the memory of x it could not be told which of them a kernel got.
        self.apart = not {*map(_memory, (x, *made))} & {*map(_memory, self._constants)}

    def knows(self, arg: Any) -> bool:
        """Whether a kernel's argument is no tensor, or one that there will be in the next call too."""
        tensor = _tensor(arg)
        return tensor is None or any(tensor is one for one in self._constants) or tensor.data_ptr() in self._new

    def of_launch(self, launched: CapturedLaunch) -> list[int]:
        args = (*launched.before, *launched.args, *launched.after)
        return [1 if place == launched.stream else self._of(arg) for place, arg in enumerate(args)]

    def _of(self, arg: Any) -> int:
        tensor = _tensor(arg)
        number = None if tensor is None else self._new.get(tensor.data_ptr())
        if tensor is not None and number is not None:
            if tensor is arg:
                return number
            # Without the memory that was recorded with: it is not to be kept.
            self.descriptors.append((self._first_fixed + len(self.fixed), number))
            arg = _moved(arg, tensor.new_empty(0))
        self.fixed.append(arg)
        return self._first_fixed + len(self.fixed) - 1


def _like(tensor: Tensor) -> Like:
    return tensor.new_empty(0), tuple(tensor.shape)


def _laid_out(x: Tensor) -> bool:
    """Whether x is as kernels like it best, without gaps and aligned."""
    return x.is_contiguous() and x.data_ptr() % ALIGNMENT == 0


def _tensor(arg: Any) -> Tensor | None:
    """The tensor that an argument of a kernel is, or describes."""
    arg = arg.base if isinstance(arg, TensorDescriptor) else arg
    return arg if isinstance(arg, Tensor) else None


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
