"""Values that a model cannot be used with, in its parameters or in sparseq's layers: refused in saving and loading.

A model's own buffers may hold them: a causal mask is -inf where nothing is to be seen.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from sparseq.errors import InputError

__all__ = ["check_values_finite"]


def check_values_finite(tensors: Mapping[str, Tensor], place: str) -> None:
    """InputError, with the tensor's name and `place`, for NaN or infinity."""
    for name, tensor in tensors.items():
        if (tensor.is_floating_point() or tensor.is_complex()) and not torch.isfinite(tensor).all():
            raise InputError(f"{name}{place} holds NaN or infinity; this model cannot be used")
