"""The reference of `block_sparse_int8_linear` and its backward: the weight is made dense."""

from typing import Any

from torch import Tensor

from ..numerics import from_blocks
from .int8_linear import int8_linear, int8_linear_backward, int8_linear_tangent

# `rest`: as in `int8_linear` from the weight's scale on, without an output scale.


def block_sparse_int8_linear(
    x: Tensor, values: Tensor, block_columns: Tensor, offsets: Tensor, order: Tensor, *rest: Any
) -> Tensor:
    return int8_linear(x, from_blocks(values, block_columns, offsets, x.shape[-1]), *rest)


def block_sparse_int8_linear_backward(
    grad: Tensor,
    x: Tensor | None,
    values: Tensor,
    block_columns: Tensor,
    offsets: Tensor,
    order: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    input_scale: Tensor | None,
    activation: str,
    in_features: int,
    *rest: Any,
) -> tuple[Tensor, Tensor]:
    weight = from_blocks(values, block_columns, offsets, in_features)
    return int8_linear_backward(grad, x, weight, weight_scale, bias, input_scale, activation, in_features, *rest)


def block_sparse_int8_linear_tangent(
    x: Tensor, values: Tensor, block_columns: Tensor, offsets: Tensor, order: Tensor, *rest: Any
) -> Tensor:
    """The forward-mode derivative: as `int8_linear_tangent`."""
    return int8_linear_tangent(x, from_blocks(values, block_columns, offsets, x.shape[-1]), *rest)
