"""Replays the launches of an op's earlier call, for the same weights and an x of the same shape and dtype.

Most of a call's time on the host goes into what is the same each time: checks, the choice of a `GemmConfig`, the
properties by which a compiled kernel is found. `cached` does that once, captures what is launched, and launches it
again in later calls, which differ only in the addresses of x, of the result, and of scratch memory.
"""

import itertools
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from ...torch_internals import is_plain_tensor
from .device import Device, current, current_and_stream
from .gemm_config import GemmConfig, forced_config
from .launch import CapturedLaunch, capturing, hooked
from .weight_cache import WeightCache

# Shapes of x that are captured for one weight; calls with further shapes are not captured.
MOST_SHAPES = 128
# Of memory, in bytes: the alignment by which Triton tells its kernels apart, and that of a call's scratch tensors.
ALIGNMENT, SCRATCH_ALIGNMENT = 16, 256

# An empty tensor of the same kind as one that is allocated anew, and its shape.
Like = tuple[Tensor, tuple[int, ...]]


def cached(run: Callable[..., Any], *args: Any) -> Any:
    """run(*args), or the same by replaying the launches of an earlier call. A shortcut (`registry.shortcut`).

    args: x, the weight, which lives as long as its layer, and the op's other arguments. Returns None for tensors that
    are not plain, such as a subclass.

    A call is replayed if the tensors after x are the same objects in the same memory as in a captured call for x's
    shape and dtype, the weight with the same sizes, strides and dtype, and the other arguments are equal. Values may
    have changed in place.
    """
    x, weight = args[0], args[1]
    entry = _entries.get(weight)  # Read once: another thread may replace it.
    if entry is None or not (all(map(operator.is_, entry.rest, args[2:])) or all(map(_same, entry.rest, args[2:]))):
        return _capture(run, args, None)
    if (
        not weight.is_set_to(entry.weight)
        or weight.dtype is not entry.weight.dtype
        or [tensor.data_ptr() for tensor in entry.tensors] != entry.addresses
    ):
        return _capture(run, args, None)
    capture = entry.captures.get((x.shape, x.dtype))
    if capture is None:
        return _capture(run, args, entry)
    result = capture.replay(x)
    return run(*args) if result is None else result


def _same(one: Any, other: Any) -> bool:
    return one is other or (not (isinstance(one, Tensor) or isinstance(other, Tensor)) and bool(one == other))


def captured_shapes(weight: Tensor) -> int:
    """For how many shapes and dtypes of x calls with this weight are captured."""
    entry = _entries.get(weight)
    return 0 if entry is None else len(entry.captures)


@dataclass(frozen=True)
class _Entry:
    """The captured calls with one weight and other arguments. It is replaced as a whole, never changed.

    weight: as it was at the capture, as another object, for the weight itself must be able to end. rest: the arguments
    after it. tensors: those of `rest` that are tensors. addresses: theirs at the capture. memory: what lay there, so
    that no other tensor takes its place. captures: by x's shape and dtype.
    """

    weight: Tensor
    rest: tuple[Any, ...]
    tensors: tuple[Tensor, ...]
    addresses: list[int]
    memory: tuple[Tensor, ...]
    captures: Mapping[tuple[torch.Size, torch.dtype], "CapturedCall"]


_entries: WeightCache[_Entry] = WeightCache()


def _new_entry(args: tuple[Any, ...]) -> _Entry:
    weight, rest = args[1], args[2:]
    tensors = tuple(arg for arg in rest if isinstance(arg, Tensor))
    addresses, memory = [tensor.data_ptr() for tensor in tensors], tuple(tensor.detach() for tensor in tensors)
    return _Entry(weight.detach(), rest, tensors, addresses, memory, {})


def _capture(run: Callable[..., Any], args: tuple[Any, ...], entry: _Entry | None) -> Any:
    """run(*args), captured and added to `entry`, or to a new one, if it can be replayed."""
    # A tensor with a graph could refer to the weight, which would never be freed.
    constants = [arg for arg in args[1:] if isinstance(arg, Tensor)]
    if not is_plain_tensor(args[0]) or not all(is_plain_tensor(one) and one.grad_fn is None for one in constants):
        return None
    if not all(one.is_contiguous() for one in constants):
        return run(*args)
    if entry is not None and len(entry.captures) >= MOST_SHAPES:
        return run(*args)
    x = args[0]
    with capturing() as capture:
        result = run(*args)
    captured = CapturedCall.of(x, args[1:], result, capture.launches, capture.allocated) if capture.complete else None
    if captured is not None:
        entry = entry or _new_entry(args)
        _entries.set(args[1], replace(entry, captures={**entry.captures, (x.shape, x.dtype): captured}))
    return result


class _Step(NamedTuple):
    """A launch, as run(*pick(values)) of the values of all slots."""

    run: Callable[..., Any]
    pick: Callable[[list[Any]], tuple[Any, ...]]


@dataclass(frozen=True)
class CapturedCall:
    """The launches of one call, for any x of the same shape and dtype.

    The values that kernels get have numbers, their slots: 0 is x, 1 the stream, 2 the result. Then come the scratch
    tensors, which are allocated anew for each call, and then `fixed`. Where `scratch` is None, kernels get tensors as
    addresses, which makes a launch cheaper, and scratch is one piece of memory.

    device, index, forced: Triton's device, torch's number for it, and `forced_config`, which must be the same in a
    replay. result: an empty tensor like it, and its shape. offsets: where each scratch tensor begins in that piece.
    memory: an empty tensor like all of it, and its bytes. descriptors: (slot, slot of the tensor) of the `fixed`
    descriptors that describe a tensor that is new in each call.
    """

    device: Device
    index: int
    forced: GemmConfig | None
    steps: tuple[_Step, ...]
    fixed: tuple[Any, ...]
    result: Like
    offsets: tuple[int, ...]
    memory: tuple[Tensor, int]
    scratch: tuple[Like, ...] | None
    descriptors: tuple[tuple[int, int], ...]

    def replay(self, x: Tensor) -> Tensor | None:
        """The op's result for x, of the captured shape and dtype.

        None where the captured launches are not right for x's memory layout, or in the present state of the process.
        """
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
        if self.scratch is not None:
            scratch = [like.new_empty(*shape) for like, shape in self.scratch]
            values = [x, stream, result, *scratch, *self.fixed]
            for slot, base in self.descriptors:
                values[slot] = _describing(values[base], values[slot])
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

    @classmethod
    def of(
        cls,
        x: Tensor,
        constants: Sequence[Any],
        result: Any,
        launches: Sequence[CapturedLaunch],
        allocated: Sequence[Tensor],
    ) -> "CapturedCall | None":
        """The capture of a call with these launches; None where it cannot be replayed.

        That is where x or what was allocated has gaps or is not aligned; x is not on the current device; nothing was
        launched; there are several results; or a kernel got another tensor than x, the constants, and what
        `launch.empty` allocated: such as a copy of a constant, whose values a replay would not copy again.
        """
        if not isinstance(result, Tensor) or not launches or result.dim() == 0:
            return None
        scratch = [tensor for tensor in allocated if tensor is not result]
        here = not x.is_cuda or torch.cuda.current_device() == x.get_device()
        if len(scratch) == len(allocated) or not here or not all(map(_is_aligned, (x, *allocated))):
            return None
        by_address = all(one.stream is not None for one in launches) and not any(
            isinstance(arg, TensorDescriptor) for one in launches for arg in one.args
        )
        slots = _Slots(x, [result, *scratch], constants, by_address)
        if not (slots.are_apart and all(slots.knows(arg) for one in launches for arg in one.args)):
            return None
        steps = tuple(_Step(one.run, operator.itemgetter(*slots.of_launch(one))) for one in launches)
        sizes = (-(-tensor.nbytes // SCRATCH_ALIGNMENT) * SCRATCH_ALIGNMENT for tensor in scratch)
        ends = [0, *itertools.accumulate(sizes)]
        return cls(
            current(),
            x.get_device(),
            forced_config(),
            steps,
            tuple(slots.fixed),
            _like(result),
            tuple(ends[:-1]),
            (x.new_empty(0, dtype=torch.int8), ends[-1]),
            None if by_address else tuple(map(_like, scratch)),
            tuple(slots.descriptors),
        )


class _Slots:
    """The slots of what kernels get, as `CapturedCall` has them. by_address: whether constants too become addresses."""

    def __init__(self, x: Tensor, allocated: Sequence[Tensor], constants: Sequence[Any], by_address: bool) -> None:
        self.fixed: list[Any] = []
        self.descriptors: list[tuple[int, int]] = []
        self._by_address = by_address
        self._first_fixed = 2 + len(allocated)
        self._constants = [constant for constant in constants if isinstance(constant, Tensor)]
        # Of tensors that begin where x or an allocated one does.
        self._new = {tensor.data_ptr(): slot for slot, tensor in enumerate(allocated, 2)} | {x.data_ptr(): 0}
        # With a constant in x's memory it could not be told which of the two a kernel got.
        self.are_apart = not {*map(_storage, (x, *allocated))} & {*map(_storage, self._constants)}

    def knows(self, arg: Any) -> bool:
        """Whether a kernel's argument is no tensor, or one that a later call has too."""
        tensor = _tensor(arg)
        return tensor is None or any(tensor is one for one in self._constants) or tensor.data_ptr() in self._new

    def of_launch(self, launch: CapturedLaunch) -> list[int]:
        args = (*launch.before, *launch.args, *launch.after)
        return [1 if place == launch.stream else self._slot(arg) for place, arg in enumerate(args)]

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
