"""The reference of `gelu_quantize_rows`."""

import torch.nn.functional as F
from torch import Tensor

from ..numerics import compute_dtype
from .quantize_rows import quantize_rows


def gelu_quantize_rows(x: Tensor, approximate: str, bits: int) -> tuple[Tensor, Tensor]:
    y = F.gelu(x.to(compute_dtype(x)), approximate=approximate).to(x.dtype)
    return quantize_rows(y, bits)
