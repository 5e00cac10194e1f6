"""Replays the launches of an op's earlier call, for the same weights and inputs of the same shapes and dtypes.

Most of a call's time on the host goes into what is the same each time: checks, the choice of a `GemmConfig`, the
properties by which a compiled kernel is found. A `LaunchCache` does that once, captures what is launched, and launches
it again in later calls, which differ only in the addresses of the inputs, of the results, and of scratch memory.
"""

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ...torch_internals import is_plain_tensor, is_zerotensor
from .captured_call import CapturedCall
from .launch import capturing
from .weight_cache import WeightCache

# Shapes of inputs that are captured for one weight; calls with further shapes are not captured.
MOST_SHAPES = 128


@dataclass(frozen=True)
class _Entry:
    """The captured calls with one weight and other constants. It is replaced as a whole, never changed.

    weight: as it was at the capture, as another object, for the weight itself must be able to end. rest: the other
    constants. tensors: those of `rest` that are tensors. addresses: theirs at the capture. memory: what lay there, so
    that no other tensor takes its place. captures: by the inputs' shapes and dtypes.
    """

    weight: Tensor
    rest: tuple[Any, ...]
    tensors: tuple[Tensor, ...]
    addresses: list[int]
    memory: tuple[Tensor, ...]
    captures: Mapping[tuple[torch.Size | torch.dtype, ...], CapturedCall]

    @classmethod
    def of(cls, weight: Tensor, rest: tuple[Any, ...]) -> "_Entry":
        tensors = tuple(arg for arg in rest if isinstance(arg, Tensor))
        addresses, memory = [tensor.data_ptr() for tensor in tensors], tuple(tensor.detach() for tensor in tensors)
        return cls(weight.detach(), rest, tensors, addresses, memory, {})


class LaunchCache:
    """A shortcut (`registry.shortcut`) of an op: a call is replayed if its constants, which are all arguments but the
    inputs, are the same objects in the same memory as in a captured call for inputs of these shapes and dtypes, the
    weight with the same sizes, strides and dtype, and those that are no tensors are equal. Values may have changed in
    place.

    inputs: the places of the arguments that are other tensors in each call, the op's first among them. weight: the
    place of the one that lives as long as its layer. of_int8: the cache of calls whose first input is int8, if those
    have other inputs.
    """

    def __init__(self, inputs: tuple[int, ...] = (0,), weight: int = 1, of_int8: "LaunchCache | None" = None) -> None:
        self._weight, self._of_int8 = weight, of_int8
        self._inputs, self._others = inputs, inputs[1:]
        self._entries: WeightCache[_Entry] = WeightCache()
        # What picks the constants but the weight, by the number of the op's arguments.
        self._rest: dict[int, Callable[[tuple[Any, ...]], tuple[Any, ...]]] = {}

    def __call__(self, run: Callable[..., Any], *args: Any) -> Any:
        """run(*args), or the same by replaying the launches of an earlier call. None for inputs that are not plain
        tensors, such as those of a subclass."""
        # Without functions of its own for the parts: each would take longer than what it does.
        x, weight = args[0], args[self._weight]
        if self._of_int8 is not None and x.dtype is torch.int8:
            return self._of_int8(run, *args)
        inputs: tuple[Tensor, ...] = (x,)
        key: tuple[torch.Size | torch.dtype, ...] = (x.shape, x.dtype)
        for place in self._others:
            other = args[place]
            if other.__class__ is not Tensor or other.is_neg() or is_zerotensor(other):
                return None
            inputs += (other,)
            key += (other.shape, other.dtype)
        pick = self._rest.get(len(args)) or self._picks(len(args))
        entry, rest = self._entries.get(weight), pick(args)  # Read once: another thread may replace it.
        if (
            entry is None
            or not (all(map(operator.is_, entry.rest, rest)) or all(map(_same, entry.rest, rest)))
            or not weight.is_set_to(entry.weight)
            or weight.dtype is not entry.weight.dtype
            or [tensor.data_ptr() for tensor in entry.tensors] != entry.addresses
        ):
            return self._capture(run, args, inputs, key, None)
        capture = entry.captures.get(key)
        if capture is None:
            return self._capture(run, args, inputs, key, entry)
        results = capture.replay(inputs)
        return run(*args) if results is None else results

    def captured_shapes(self, weight: Tensor) -> int:
        """For how many shapes and dtypes of the inputs calls with this weight are captured."""
        entry = self._entries.get(weight)
        return 0 if entry is None else len(entry.captures)

    def _picks(self, arguments: int) -> Callable[[tuple[Any, ...]], tuple[Any, ...]]:
        """What picks the constants but the weight of so many arguments."""
        places = [place for place in range(arguments) if place != self._weight and place not in self._inputs]
        # Of one place an itemgetter would return no tuple.
        pick = operator.itemgetter(*places, places[-1]) if places else _nothing
        self._rest[arguments] = pick
        return pick

    def _capture(
        self,
        run: Callable[..., Any],
        args: tuple[Any, ...],
        inputs: tuple[Tensor, ...],
        key: tuple[torch.Size | torch.dtype, ...],
        entry: _Entry | None,
    ) -> Any:
        """run(*args), captured and added to `entry`, or to a new one, if it can be replayed."""
        # A tensor with a graph could refer to the weight, which would never be freed.
        weight, rest = args[self._weight], self._picks(len(args))(args)
        constants = [arg for arg in (weight, *rest) if isinstance(arg, Tensor)]
        if not is_plain_tensor(args[0]) or not all(is_plain_tensor(one) and one.grad_fn is None for one in constants):
            return None
        if not all(one.is_contiguous() for one in constants):
            return run(*args)
        if entry is not None and len(entry.captures) >= MOST_SHAPES:
            return run(*args)
        with capturing() as capture:
            results = run(*args)
        if not capture.complete:
            return results
        captured = CapturedCall.of(inputs, (weight, *rest), results, capture.launches, capture.allocated)
        if captured is not None:
            entry = entry or _Entry.of(weight, rest)
            self._entries.set(weight, replace(entry, captures={**entry.captures, key: captured}))
        return results


def _nothing(args: tuple[Any, ...]) -> tuple[Any, ...]:
    return ()


def _same(one: Any, other: Any) -> bool:
    return one is other or (not (isinstance(one, Tensor) or isinstance(other, Tensor)) and bool(one == other))
