"""int8 products with a weight stored as a bitmask: expanded, then multiplied as a dense one."""

import torch
from torch import Tensor

from ..numerics import from_bitmask
from .int8_linear import int8_linear


def bitmask_int8_linear(
    x: Tensor,
    values: Tensor,
    bits: Tensor,
    offsets: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    input_scale: Tensor | None,
    activation: str,
    out_dtype: torch.dtype | None,
) -> Tensor:
    weight = from_bitmask(values, bits, x.shape[-1])
    return int8_linear(x, weight, weight_scale, bias, input_scale, activation, out_dtype)
