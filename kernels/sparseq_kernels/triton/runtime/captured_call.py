"""The launches of one call of an op, to be repeated for other inputs of the same shapes and dtypes."""

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
from .launch import CapturedLaunch, hooked

# Of memory, in bytes: the alignment by which Triton tells its kernels apart, and that of a call's scratch tensors.
ALIGNMENT, SCRATCH_ALIGNMENT = 16, 256

# An empty tensor of the same kind as one that is allocated anew, and its shape.
Like = tuple[Tensor, tuple[int, ...]]


class _Step(NamedTuple):
    """A launch, as run(*pick(values)) of the values of all slots."""

    run: Callable[..., Any]
    pick: Callable[[list[Any]], tuple[Any, ...]]


@dataclass(frozen=True)
class CapturedCall:
    """The launches of one call, for any inputs of the same shapes and dtypes.

    The values that kernels get have numbers, their slots: 0 is the stream. Then come the inputs, the results, the
    scratch tensors, which like the results are allocated anew for each call, and `fixed`. Where `scratch` is None,
    kernels get tensors as addresses, which makes a launch cheaper, and scratch is one piece of memory.

    device, index, forced: Triton's device, torch's number for it, and `forced_config`, which must be the same in a
    replay. results: an empty tensor like each, and its shape. single: whether the op returns one tensor, no tuple.
    offsets: where each scratch tensor begins in that piece. memory: an empty tensor like all of it, and its bytes.
    descriptors: (slot, slot of the tensor) of the `fixed` descriptors that describe a tensor that is new in each call.
    """

    device: Device
    index: int
    forced: GemmConfig | None
    steps: tuple[_Step, ...]
    fixed: tuple[Any, ...]
    results: tuple[Like, ...]
    single: bool
    offsets: tuple[int, ...]
    memory: tuple[Tensor, int]
    scratch: tuple[Like, ...] | None
    descriptors: tuple[tuple[int, int], ...]

    def replay(self, inputs: Sequence[Tensor]) -> Any:
        """The op's results for inputs of the captured shapes and dtypes.

        None where the captured launches are not right for the inputs' memory layout, or in the present state of the
        process.
        """
        device, stream = current_and_stream()
        if device is not self.device or forced_config() is not self.forced or hooked():
            return None
        values: list[Any] = [stream]
        for x in inputs:
            at = x.data_ptr()
            if at % ALIGNMENT or not x.is_contiguous() or x.get_device() != self.index:
                return None
            values.append(x if self.scratch is not None else at)
        results = []
        for like, shape in self.results:
            result = like.new_empty(*shape)
            values.append(result if self.scratch is not None else result.data_ptr())
            results.append(result)
        if self.scratch is not None:
            values += [like.new_empty(*shape) for like, shape in self.scratch]
        elif self.offsets:
            like, size = self.memory
            memory = like.new_empty(size)
            start = memory.data_ptr()
            values += [start + offset for offset in self.offsets]
        values += self.fixed
        for slot, base in self.descriptors:
            values[slot] = _describing(values[base], values[slot])
        for run, pick in self.steps:
            run(*pick(values))
        return results[0] if self.single else tuple(results)

    @classmethod
    def of(
        cls,
        inputs: Sequence[Tensor],
        constants: Sequence[Any],
        returned: Any,
        launches: Sequence[CapturedLaunch],
        allocated: Sequence[Tensor],
    ) -> "CapturedCall | None":
        """The capture of a call with these launches; None where it cannot be replayed.

        That is where an input or what was allocated has gaps or is not aligned; an input is not on the current device;
        two begin at the same place; nothing was launched; or a kernel got another tensor than the inputs, the
        constants, and what `launch.empty` allocated: such as a copy of a constant, whose values a replay would not copy
        again.

        returned: a tensor or a tuple of tensors.
        """
        results = [returned] if isinstance(returned, Tensor) else list(returned)
        if not launches or not all(isinstance(one, Tensor) and one.dim() for one in results):
            return None
        ours = [any(one is result for result in results) for one in allocated]
        scratch = [tensor for tensor, is_result in zip(allocated, ours, strict=True) if not is_result]
        here = all(not x.is_cuda or torch.cuda.current_device() == x.get_device() for x in inputs)
        if sum(ours) != len(results) or not here or not all(map(_is_aligned, (*inputs, *allocated))):
            return None
        by_address = all(one.stream is not None for one in launches) and not any(
            isinstance(arg, TensorDescriptor) for one in launches for arg in one.args
        )
        slots = _Slots([*inputs, *results, *scratch], constants, by_address)
        if not (slots.are_apart and all(slots.knows(arg) for one in launches for arg in one.args)):
            return None
        steps = tuple(_Step(one.run, operator.itemgetter(*slots.of_launch(one))) for one in launches)
        sizes = (-(-tensor.nbytes // SCRATCH_ALIGNMENT) * SCRATCH_ALIGNMENT for tensor in scratch)
        ends = [0, *itertools.accumulate(sizes)]
        return cls(
            current(),
            inputs[0].get_device(),
            forced_config(),
            steps,
            tuple(slots.fixed),
            tuple(map(_like, results)),
            isinstance(returned, Tensor),
            tuple(ends[:-1]),
            (inputs[0].new_empty(0, dtype=torch.int8), ends[-1]),
            None if by_address else tuple(map(_like, scratch)),
            tuple(slots.descriptors),
        )


class _Slots:
    """The slots of what kernels get, as `CapturedCall` has them.

    new: the tensors that are others in each call. by_address: whether constants too become addresses.
    """

    def __init__(self, new: Sequence[Tensor], constants: Sequence[Any], by_address: bool) -> None:
        self.fixed: list[Any] = []
        self.descriptors: list[tuple[int, int]] = []
        self._by_address = by_address
        self._first_fixed = 1 + len(new)
        self._constants = [constant for constant in constants if isinstance(constant, Tensor)]
        # Of tensors that begin where a new one does.
        self._new = {tensor.data_ptr(): slot for slot, tensor in enumerate(new, 1)}
        # With a constant in an input's memory, or two inputs in the same, it could not be told which a kernel got.
        alone = len(self._new) == len(new)
        self.are_apart = alone and not {*map(_storage, new)} & {*map(_storage, self._constants)}

    def knows(self, arg: Any) -> bool:
        """Whether a kernel's argument is no tensor, or one that a later call has too."""
        tensor = _tensor(arg)
        return tensor is None or any(tensor is one for one in self._constants) or tensor.data_ptr() in self._new

    def of_launch(self, launch: CapturedLaunch) -> list[int]:
        args = (*launch.before, *launch.args, *launch.after)
        return [0 if place == launch.stream else self._slot(arg) for place, arg in enumerate(args)]

    def _slot(self, arg: Any) -> int:
        tensor = _tensor(arg)
        slot = None if tensor is None else self._new.get(tensor.data_ptr())
        if tensor is not None and slot is not None:
            if tensor is arg:
                return slot
            # A descriptor, kept without the memory of this call.
            self.descriptors.append((self._first_fixed + len(self.fixed), slot))
            arg = _describing(tensor.new_empty(0), arg)
        elif tensor is not None:
            # A constant. The capture must not refer to the weight itself, which then could not end.
            if tensor is not arg:
                arg = _describing(tensor.detach(), arg)
            else:
                arg = tensor.data_ptr() if self._by_address else tensor.detach()
        self.fixed.append(arg)
        return self._first_fixed + len(self.fixed) - 1


def _describing(base: Tensor, descriptor: TensorDescriptor) -> TensorDescriptor:
    """The same descriptor of another tensor."""
    return TensorDescriptor(base, descriptor.shape, descriptor.strides, descriptor.block_shape)


def _like(tensor: Tensor) -> Like:
    return tensor.new_empty(0), tuple(tensor.shape)


def _is_aligned(x: Tensor) -> bool:
    """Whether x has no gaps and begins at a multiple of ALIGNMENT."""
    return x.is_contiguous() and x.data_ptr() % ALIGNMENT == 0


def _tensor(arg: Any) -> Tensor | None:
    """The tensor that a kernel's argument is, or describes."""
    arg = arg.base if isinstance(arg, TensorDescriptor) else arg
    return arg if isinstance(arg, Tensor) else None


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
