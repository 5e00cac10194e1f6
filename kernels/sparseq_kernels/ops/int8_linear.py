"""`int8_linear`: the linear layer of a packed model, with a dense int8 weight."""

import torch
from torch import Tensor

from .. import validation as valid
from ..dispatch import Op
from ..errors import InputError
from ..reference import int8_linear as reference
from .shared.int8_products import backward_schema, define_product, schema

WEIGHT = "Tensor weight"
OP = Op("int8_linear", schema(WEIGHT, ", Tensor? output_scale=None"), reference.int8_linear, ("x", "bias"))
BACKWARD = Op("int8_linear_backward", backward_schema(WEIGHT), reference.int8_linear_backward)


def int8_linear(
    x: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None = None,
    input_scale: Tensor | None = None,
    activation: str = "none",
    out_dtype: torch.dtype | None = None,
    output_scale: Tensor | None = None,
) -> Tensor:
    """y = act((q_x weight^T) * s_x * weight_scale + bias), where q_x are the int8 values of x and s_x their scales.

    The sums of products are exact int32. The gradient for x is straight-through, zero where a static scale clips; the
    weight and the scales are constants.

    Args:
        x: [..., K], floating; or int8, already quantized.
        weight: [N, K], int8.
        weight_scale: [N], floating.
        bias: [N], floating, or None.
        input_scale: for floating x one static scale, or None for a scale a row. For int8 x its scale: one, or one a
            row.
        activation: "none", "relu", "gelu" or "gelu_tanh".
        out_dtype: of y; x's own if None (fp32 for int8 x), autocast's under autocast.
        output_scale: one value; y is then int8 of this scale, for the next layer, and has no gradient.

    Returns:
        [..., N].

    Raises:
        InputError: for wrong dtypes or shapes, an unknown activation, or int8 x without its scale.
    """
    y: Tensor = OP(x, weight, weight_scale, bias, input_scale, activation, out_dtype, output_scale)
    return y


def _validate_weight(op: str, inputs: int, stored: tuple[Tensor, ...], weight_scale: Tensor) -> None:
    (weight,) = stored
    if weight.dim() != 2 or weight.shape[1] != inputs:
        raise InputError(
            f"{op}: an input of {inputs} features does not fit a weight of shape {tuple(weight.shape)}, whose second "
            "dimension must be in_features"
        )
    valid.dtype(op, "weight", weight, torch.int8)
    valid.shape(op, "weight_scale", weight_scale, (weight.shape[0],))


define_product(OP, BACKWARD, _validate_weight, reference.int8_linear_tangent)
