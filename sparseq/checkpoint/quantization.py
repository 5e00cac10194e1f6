"""The entry of config.json that names sparseq to transformers, and says to a reader how the layers are quantized."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .names import METHOD

__all__ = ["quantization_entry"]

# What layers have in common. Shapes, counts and the like differ from layer to layer and are in the header alone.
_SHARED = ("bits", "format", "block", "pattern", "activation", "scale", "static", "mask", "dtype")


def quantization_entry(layers: Mapping[str, tuple[str, Mapping[str, Any]]], version: int) -> dict[str, Any]:
    """The value of "quantization_config": method, version of the format, and the layers by their common settings.

    layers: module name -> (class, settings) of the sparseq layers. The header of the weights is what loading reads;
    this entry must agree with it.
    """
    groups: dict[str, dict[str, Any]] = {}
    for name, (kind, settings) in sorted(layers.items()):
        flat = {**settings, **(settings["weight"] if isinstance(settings.get("weight"), Mapping) else {})}
        group: dict[str, Any] = {"class": kind, **{key: flat[key] for key in _SHARED if key in flat}}
        groups.setdefault(json.dumps(group), {**group, "layers": []})["layers"].append(name)
    return {"quant_method": METHOD, "version": version, "groups": list(groups.values())}
