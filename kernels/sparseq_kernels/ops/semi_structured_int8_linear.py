"""`semi_structured_int8_linear`: `int8_linear` with a 2:4 sparse weight."""

from typing import Any

import torch
from torch import Tensor

from ..dispatch import Op
from ..errors import InputError
from ..numerics import check_pairs
from ..reference import semi_structured_int8_linear as reference
from .shared.int8_products import backward_schema, define_product, schema, validate_scale_vector, validate_stored

WEIGHT = "Tensor values, Tensor indices"
OP = Op("semi_structured_int8_linear", schema(WEIGHT), reference.semi_structured_int8_linear, ("x", "bias"))
BACKWARD = Op(
    "semi_structured_int8_linear_backward", backward_schema(WEIGHT), reference.semi_structured_int8_linear_backward
)


def semi_structured_int8_linear(
    x: Tensor,
    values: Tensor,
    indices: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None = None,
    input_scale: Tensor | None = None,
    activation: str = "none",
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    """`int8_linear` with a weight [N, K] of which two of every four columns are stored (N:M sparsity of 2:4).

    Args:
        x, weight_scale, bias, input_scale, activation, out_dtype: as in `int8_linear`.
        values: [N, K / 2], int8.
        indices: [N, ceil(K / 8)], uint8: four bits for four columns, the first four in the lower bits: the column of
            the first value in the lower two bits, that of the second, which is greater, in the upper two.

    Returns:
        [..., N].

    Raises:
        InputError: as `int8_linear`, and for a weight that is inconsistent (its values: on a CPU).
    """
    y: Tensor = OP(x, values, indices, weight_scale, bias, input_scale, activation, out_dtype)
    return y


def _validate_weight(op: str, inputs: int, stored: tuple[Tensor, ...], weight_scale: Tensor) -> None:
    validate_scale_vector(op, weight_scale)
    outputs = weight_scale.shape[0]
    if inputs % 4:
        raise InputError(f"{op}: in_features must be a multiple of 4, not {inputs}")
    expected: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {
        "values": (torch.int8, (outputs, inputs // 2)),
        "indices": (torch.uint8, (outputs, -(-inputs // 8))),
    }
    validate_stored(op, stored, expected)


def _validate_values(op: str, columns: int, values: Tensor, indices: Tensor) -> None:
    check_pairs(indices, columns, f"{op}: a semi_structured weight is inconsistent")


define_product(OP, BACKWARD, _validate_weight, reference.semi_structured_int8_linear_tangent)


@OP.validate_values
def _(op: str, x: Tensor, *args: Any) -> None:
    _validate_values(op, x.shape[-1], *args[:2])


@BACKWARD.validate_values
def _(op: str, grad: Tensor, x: Tensor | None, *args: Any) -> None:
    _validate_values(op, args[6], *args[:2])
