"""Layers that belong together: those that share a weight, and the deep copies of one layer.

Neither knows of the other by itself: a tie is one Parameter in two modules, an average of a model's weights is a copy
made before training. They are found among all layers that are alive, which are held weakly.
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
# Mask as it was -> (the mask that it became on another device, its version, the version of the old one).
_MOVED = WeakTensorKeyDictionary()


def register(layer: nn.Module) -> None:
    """Makes the layer known to its kin."""
    with _LOCK:
        _LAYERS.add(layer)


def _alive(like: Layer) -> list[Layer]:
    """The registered layers, which are of the class of `like`."""
    with _LOCK:
        return cast(list[Layer], list(_LAYERS))


def new_lineage() -> int:
    """What a layer and its deep copies have in common, and no other layer, of this process or another."""
    return int.from_bytes(os.urandom(8), "little")


def tied(layer: Layer) -> list[Layer]:
    """The layers that share this one's weight, itself first."""
    weight = layer._parameters.get("weight")
    others = [] if weight is None else [k for k in _alive(layer) if k._parameters.get("weight") is weight]
    return [layer, *(other for other in others if other is not layer)]


def copies(layer: Layer) -> Iterator[Layer]:
    """Deep copies of the layer, and what it is a copy of."""
    return (k for k in _alive(layer) if k is not layer and k.lineage == layer.lineage)


def moved(before: Tensor, after: Tensor) -> Tensor:
    """`after`, to which a mask was just copied; or the copy that a tied layer has made of the same mask already."""
    known = _MOVED.get(before)
    if known is not None:
        copy, version, old_version = known
        if copy.device == after.device and (version_of(copy), version_of(before)) == (version, old_version):
            found: Tensor = copy
            return found
    _MOVED[before] = (after, version_of(after), version_of(before))
    return after


def first_names(weights: Mapping[str, Tensor]) -> dict[str, str]:
    """Each name -> the first name that its weight has among them: the same one for tied weights."""
    first: dict[int, str] = {}
    return {name: first.setdefault(id(weight), name) for name, weight in weights.items()}


def version_of(tensor: Tensor) -> int | None:
    """How often the tensor was changed in place; None for those of `torch.inference_mode`, which do not count."""
    return None if tensor.is_inference() else tensor._version
