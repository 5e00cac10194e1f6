import torch
from torch import Tensor

from ..numerics import compute_dtype, qmax, reciprocal, row_max, scale_from_max, storage_dtype


def quantize(x: Tensor, scale: Tensor, bits: int) -> Tensor:
    """round(x / scale), clamped, as integers; `scale` broadcasts against x; 0 where the result is not a number."""
    limit = qmax(bits)
    levels = torch.round(x.to(compute_dtype(x)) * reciprocal(scale)).clamp(-limit, limit)
    return levels.nan_to_num(nan=0.0).to(storage_dtype(bits))


def quantize_rows(x: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    scale = scale_from_max(row_max(x), bits)
    return quantize(x, scale.unsqueeze(-1), bits), scale
