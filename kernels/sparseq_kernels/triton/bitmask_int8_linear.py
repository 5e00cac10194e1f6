"""Host code of `bitmask_int8_linear`."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..registry import implementation, shortcut
from .decoding import Stored, decoding_linear
from .runtime.launch_cache import cached


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


@shortcut("bitmask_int8_linear", "triton")
def cached_call(run: Callable[..., Any], *args: Any) -> Any:
    """The op through the launch cache, which makes a repeated call of a packed layer cheap on the host."""
    return cached("bitmask_int8_linear", run, args)
