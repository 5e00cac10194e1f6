"""The reference of `bitmask_int8_linear` and its backward: the weight is made dense."""

from typing import Any

from torch import Tensor

from ..numerics import from_bitmask
from .int8_linear import int8_linear, int8_linear_backward, int8_linear_tangent

# `rest`: as in `int8_linear` from the weight's scale on, without an output scale.


def bitmask_int8_linear(x: Tensor, values: Tensor, bits: Tensor, offsets: Tensor, *rest: Any) -> Tensor:
    return int8_linear(x, from_bitmask(values, bits, x.shape[-1]), *rest)


def bitmask_int8_linear_backward(
    grad: Tensor,
    x: Tensor | None,
    values: Tensor,
    bits: Tensor,
    offsets: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    input_scale: Tensor | None,
    activation: str,
    in_features: int,
    *rest: Any,
) -> tuple[Tensor, Tensor]:
    weight = from_bitmask(values, bits, in_features)
    return int8_linear_backward(grad, x, weight, weight_scale, bias, input_scale, activation, in_features, *rest)


def bitmask_int8_linear_tangent(x: Tensor, values: Tensor, bits: Tensor, offsets: Tensor, *rest: Any) -> Tensor:
    """The forward-mode derivative: as `int8_linear_tangent`."""
    return int8_linear_tangent(x, from_bitmask(values, bits, x.shape[-1]), *rest)
