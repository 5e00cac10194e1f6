"""Related layers: those that share a weight, and the deep copies of a layer.

The layers do not refer to each other: a tie is one Parameter in two modules, and an average of a model's weights is a
copy made before training. They are found among all live layers, which are referenced weakly.
"""

import os
import threading
import weakref
from collections.abc import Iterator, Mapping
from typing import TypeVar, cast

from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

# A layer with a `weight` and a `lineage`; all that are registered are of one class, `masking.MaskedWeight`.
Layer = TypeVar("Layer", bound=nn.Module)

_LOCK = threading.RLock()
_LAYERS: weakref.WeakSet[nn.Module] = weakref.WeakSet()
# Mask -> (the same mask on another device, the version of that, the version of the original).
_MOVED = WeakTensorKeyDictionary()


def register(layer: nn.Module) -> None:
    """Adds the layer to those that are searched for related layers."""
    with _LOCK:
        _LAYERS.add(layer)


def _alive(like: Layer) -> list[Layer]:
    """The registered layers; all are of the class of `like`."""
    with _LOCK:
        return cast(list[Layer], list(_LAYERS))


def new_lineage() -> int:
    """A random number that a layer shares with its deep copies, and with no other layer of this or another process."""
    return int.from_bytes(os.urandom(8), "little")


def tied(layer: Layer) -> list[Layer]:
    """The layers that share the weight of this one, itself first."""
    weight = layer._parameters.get("weight")
    others = [] if weight is None else [k for k in _alive(layer) if k._parameters.get("weight") is weight]
    return [layer, *(other for other in others if other is not layer)]


def copies(layer: Layer) -> Iterator[Layer]:
    """The deep copies of the layer, and the layer that it is a copy of."""
    return (k for k in _alive(layer) if k is not layer and k.lineage == layer.lineage)


def moved(before: Tensor, after: Tensor) -> Tensor:
    """`after`, the result of moving a mask, or the equal result that a tied layer got for the same mask before."""
    known = _MOVED.get(before)
    if known is not None:
        copy, version, old_version = known
        if copy.device == after.device and (version_of(copy), version_of(before)) == (version, old_version):
            found: Tensor = copy
            return found
    _MOVED[before] = (after, version_of(after), version_of(before))
    return after


def first_names(weights: Mapping[str, Tensor]) -> dict[str, str]:
    """Maps each name to the first name of the same weight, so that tied weights have the same one."""
    first: dict[int, str] = {}
    return {name: first.setdefault(id(weight), name) for name, weight in weights.items()}


def version_of(tensor: Tensor) -> int | None:
    """The version counter of the tensor; None for inference tensors, which have none."""
    return None if tensor.is_inference() else tensor._version
