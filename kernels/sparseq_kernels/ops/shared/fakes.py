"""Empty tensors for fake versions: the shapes and dtypes of results."""

from typing import Any

import torch
from torch import Tensor

from ...numerics import compute_dtype, storage_dtype


def quantized_like(x: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """(quantized values [..., K], scale [...]) of x [..., K]."""
    scale = torch.empty(x.shape[:-1], dtype=compute_dtype(x), device=x.device)
    return torch.empty(x.shape, dtype=storage_dtype(bits), device=x.device), scale


def linear_output(x: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
    """[..., N] of x [..., K] and any tensor with N rows."""
    return torch.empty((*x.shape[:-1], weight.shape[0]), dtype=dtype, device=x.device)


def if_needed(like: Tensor, shape: Any, needed: bool, dtype: torch.dtype | None = None) -> Tensor:
    """A gradient of this shape and dtype; an empty one, of `like`'s dtype, where it is not needed."""
    return torch.empty(
        shape if needed else 0, dtype=(dtype or like.dtype) if needed else like.dtype, device=like.device
    )
