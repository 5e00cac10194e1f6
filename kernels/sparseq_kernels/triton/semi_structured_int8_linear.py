"""Host code of `semi_structured_int8_linear`: weights of which two in every four are kept (2:4)."""

import torch
from torch import Tensor

from ..registry import implementation
from .decoding import Stored, decoding_linear


@implementation("semi_structured_int8_linear", "triton")
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
    values = values.contiguous()
    # The two values that are kept of four are one load of 16 bits, which must be aligned.
    values = values.clone() if values.data_ptr() % 2 else values
    stored = Stored(values, indices.contiguous(), None, "2:4")
    return decoding_linear(x, stored, weight_scale, bias, input_scale, activation, out_dtype)
