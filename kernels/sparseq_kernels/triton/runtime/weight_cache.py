"""`WeightCache`: what is known of weights, kept as long as each weight lives."""

import weakref
from typing import Any, Generic, TypeVar

from torch import Tensor

T = TypeVar("T")


class WeightCache(Generic[T]):
    """One value for each weight tensor, found by the tensor itself. It keeps no weight alive.

    Safe to use from several threads: a value is replaced as a whole.
    """

    def __init__(self) -> None:
        # By the weight's id, which another tensor may have once the weight is gone.
        self._entries: dict[int, tuple[weakref.ref[Tensor], T]] = {}

    def get(self, weight: Any) -> T | None:
        """The weight's value; None if there is none."""
        entry = self._entries.get(id(weight))
        return entry[1] if entry is not None and entry[0]() is weight else None

    def set(self, weight: Tensor, value: T) -> None:
        """Replaces the weight's value. The value must not refer to the weight, not even through an autograd graph: the
        weight would never be freed."""
        key = id(weight)

        def remove(reference: "weakref.ref[Tensor]") -> None:
            entry = self._entries.get(key)
            if entry is not None and entry[0] is reference:
                self._entries.pop(key, None)

        self._entries[key] = (weakref.ref(weight, remove), value)

    def __len__(self) -> int:
        return len(self._entries)
