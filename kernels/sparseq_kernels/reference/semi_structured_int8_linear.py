"""int8 products with a 2:4 sparse weight: expanded, then multiplied as a dense one."""

import torch
from torch import Tensor

from ..numerics import from_pairs
from .int8_linear import int8_linear


def semi_structured_int8_linear(
    x: Tensor,
    values: Tensor,
    indices: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    input_scale: Tensor | None,
    activation: str,
    out_dtype: torch.dtype | None,
) -> Tensor:
    weight = from_pairs(values, indices)
    return int8_linear(x, weight, weight_scale, bias, input_scale, activation, out_dtype)
