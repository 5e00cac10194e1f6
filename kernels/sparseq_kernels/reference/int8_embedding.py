import torch
from torch import Tensor

from ..numerics import compute_dtype


def int8_embedding(indices: Tensor, weight: Tensor, scale: Tensor, out_dtype: torch.dtype | None) -> Tensor:
    indices = indices.long()  # As an index uint8 would be a mask, and int16 refused.
    rows = weight[indices].to(compute_dtype(scale)) * scale[indices].unsqueeze(-1)
    return rows.to(out_dtype or scale.dtype)
