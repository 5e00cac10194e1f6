"""int8 products with a block-sparse weight: expanded, then multiplied as a dense one."""

import torch
from torch import Tensor

from ..numerics import from_blocks
from .int8_linear import int8_linear


def block_sparse_int8_linear(
    x: Tensor,
    values: Tensor,
    block_columns: Tensor,
    offsets: Tensor,
    order: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    input_scale: Tensor | None,
    activation: str,
    out_dtype: torch.dtype | None,
) -> Tensor:
    weight = from_blocks(values, block_columns, offsets, x.shape[-1])
    return int8_linear(x, weight, weight_scale, bias, input_scale, activation, out_dtype)
