"""The checksum of a file: a sha256 over its text entries and every tensor's name, dtype, shape and bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

__all__ = ["checksum", "raw"]


def checksum(metadata: Mapping[str, str], tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Hex digest; `tensors` must be sorted by name, and are released one by one."""
    digest = hashlib.sha256(json.dumps(dict(metadata), sort_keys=True).encode())
    for name, tensor in tensors:
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        if tensor.numel():
            digest.update(raw(tensor))
    return digest.hexdigest()


def raw(tensor: Tensor) -> memoryview:
    """The bytes of a contiguous CPU tensor with at least one element, not copied."""
    data: memoryview = tensor.reshape(-1).view(torch.uint8).numpy().data
    return data
