"""The reference of `layer_norm_quantize_rows`."""

import torch.nn.functional as F
from torch import Tensor

from ..numerics import compute_dtype
from .quantize_rows import quantize_rows


def layer_norm_quantize_rows(
    x: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor, eps: float, bits: int
) -> tuple[Tensor, Tensor, Tensor]:
    dtype = compute_dtype(x)
    total = x.to(dtype) if residual is None else x.to(dtype) + residual.to(dtype)
    y = F.layer_norm(total, weight.shape, weight.to(dtype), bias.to(dtype), eps).to(x.dtype)
    return *quantize_rows(y, bits), y
