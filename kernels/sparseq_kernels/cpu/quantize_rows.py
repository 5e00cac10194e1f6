import torch
from torch import Tensor

from ..numerics import as_rows, compute_dtype, qmax, reciprocal, row_max, scale_from_max, storage_dtype
from ..reference import quantize_rows as reference
from . import native as compiled


def quantize_rows(x: Tensor, bits: int, *, native: bool) -> tuple[Tensor, Tensor]:
    if native and x.dtype == torch.float32 and bits <= 8 and x.dim():
        q, scale = compiled.quantize_rows(as_rows(x), bits)
        return q.reshape(x.shape), scale.reshape(x.shape[:-1])
    scale = scale_from_max(row_max(x), bits)
    return quantize(x, scale.unsqueeze(-1), bits, clamp=False), scale


def quantize(x: Tensor, scale: Tensor, bits: int, *, clamp: bool = True) -> Tensor:
    """The reference's integers in few passes. `clamp=False` for scales from the maximum, beyond which nothing lies."""
    if not torch.isfinite(scale).all():
        return reference.quantize(x, scale, bits)
    levels = torch.mul(x.to(compute_dtype(x)), reciprocal(scale)).round_()
    if clamp:
        levels.clamp_(-qmax(bits), qmax(bits)).nan_to_num_(nan=0.0)
    return levels.to(storage_dtype(bits))
