"""Host code of `bitmask_int8_linear`."""

import torch
from torch import Tensor

from ..registry import implementation
from .decoding import Stored, decoding_linear


@implementation("bitmask_int8_linear", "triton")
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
    stored = Stored(values.contiguous(), bits.contiguous(), offsets.contiguous(), "bitmask")
    return decoding_linear(x, stored, weight_scale, bias, input_scale, activation, out_dtype)
