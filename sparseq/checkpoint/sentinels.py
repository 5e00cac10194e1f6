"""Tensors that make other libraries refuse a file, where they would otherwise use random or unquantized weights.

A reader of plain models looks up tensors by name, and initializes a weight at random if it finds no tensor for it: a
packed layer is stored as `values` and `scale`, without a `weight`. Of a training layer it would take the weight and
ignore the quantization. But such readers refuse tensors of another shape. So a `weight` without elements, a sentinel,
is stored next to the tensors of a packed layer, and the weight of a training layer is stored with a third axis of
length 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sparseq.nn import LAYERS
from sparseq.nn.masking import MaskedWeight

__all__ = ["WEIGHT", "guarded", "is_guarded", "sentinel_name", "unguarded"]

WEIGHT = "weight"


def sentinel_name(layer: str, kind: str) -> str | None:
    """The name of the sentinel of the layer called `layer` of class `kind`; None if it has none."""
    return None if issubclass(LAYERS[kind], MaskedWeight) else f"{layer}.{WEIGHT}".removeprefix(".")


def sentinel() -> Tensor:
    return torch.empty(0, dtype=torch.uint8, device="cpu")


def is_guarded(name: str, layers: Mapping[str, Any]) -> bool:
    """Whether the tensor `name` in the file is a training layer's weight; layers: name -> {"class", ...}."""
    layer, _, key = name.rpartition(".")
    entry = layers.get(layer)
    kind = LAYERS.get(str(entry.get("class"))) if isinstance(entry, Mapping) else None
    return key == WEIGHT and kind is not None and issubclass(kind, MaskedWeight)


def guarded(tensor: Tensor) -> Tensor:
    """A training layer's weight in its stored shape."""
    return tensor.unsqueeze(-1)


def unguarded(tensor: Tensor) -> Tensor:
    """A stored weight in the shape that the layer has."""
    return tensor.squeeze(-1)
