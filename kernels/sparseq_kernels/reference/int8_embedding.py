"""The reference of `int8_embedding`."""

import torch
from torch import Tensor

from ..numerics import compute_dtype


def int8_embedding(indices: Tensor, weight: Tensor, scale: Tensor, out_dtype: torch.dtype | None) -> Tensor:
    # `index_select` rejects negative indices, as training does, and does not take uint8 indices for a mask.
    flat = indices.long().reshape(-1)
    rows = weight.index_select(0, flat).to(compute_dtype(scale)) * scale.index_select(0, flat).unsqueeze(-1)
    return rows.to(out_dtype or scale.dtype).reshape(*indices.shape, weight.shape[1])
