"""What makes a library that knows no sparseq layer refuse a file, where it would take random or unquantized weights.

A reader of plain models takes tensors by their names, and leaves a weight that it finds no tensor for at random: of a
packed layer the file holds `values` and `scale`, but no `weight`. And of a training layer it would take the weight and
leave out its quantization. No such reader takes a tensor of another shape. So beside a packed layer's tensors stands a
`weight` without elements, a sentinel; and a training layer's weight is stored with a third axis, of length 1.
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
    """The name of the sentinel that belongs to the layer called `layer` of the class `kind`; None where none does."""
    return None if issubclass(LAYERS[kind], MaskedWeight) else f"{layer}.{WEIGHT}".removeprefix(".")


def sentinel() -> Tensor:
    return torch.empty(0, dtype=torch.uint8, device="cpu")


def is_guarded(name: str, layers: Mapping[str, Any]) -> bool:
    """Whether the tensor called `name` in the file is a training layer's weight; layers: name -> {"class", ...}."""
    layer, _, key = name.rpartition(".")
    entry = layers.get(layer)
    kind = LAYERS.get(str(entry.get("class"))) if isinstance(entry, Mapping) else None
    return key == WEIGHT and kind is not None and issubclass(kind, MaskedWeight)


def guarded(tensor: Tensor) -> Tensor:
    """A training layer's weight as it is stored."""
    return tensor.unsqueeze(-1)


def unguarded(tensor: Tensor) -> Tensor:
    """A stored weight as the layer has it."""
    return tensor.squeeze(-1)
