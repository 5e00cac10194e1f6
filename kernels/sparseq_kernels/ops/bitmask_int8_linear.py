"""`bitmask_int8_linear`: `int8_linear` with an unstructured sparse weight, one bit a weight saying what is kept."""

from typing import Any

import torch
from torch import Tensor

from ..dispatch import Op
from ..errors import InputError
from ..numerics import CHUNK, chunk_offsets, unpack_mask
from ..reference import bitmask_int8_linear as reference
from .shared.int8_products import backward_schema, define_product, schema, validate_scale_vector, validate_stored

WEIGHT = "Tensor values, Tensor bits, Tensor offsets"
OP = Op("bitmask_int8_linear", schema(WEIGHT), reference.bitmask_int8_linear, ("x", "bias"))
BACKWARD = Op("bitmask_int8_linear_backward", backward_schema(WEIGHT), reference.bitmask_int8_linear_backward)


def bitmask_int8_linear(
    x: Tensor,
    values: Tensor,
    bits: Tensor,
    offsets: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None = None,
    input_scale: Tensor | None = None,
    activation: str = "none",
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    """`int8_linear` with a weight [N, K] of which single values are kept.

    Args:
        x, weight_scale, bias, input_scale, activation, out_dtype: as in `int8_linear`.
        values: [kept], int8: the kept values, row by row.
        bits: [N, ceil(K / 8)], uint8: one bit a weight, the first column in the lowest bit.
        offsets: [N, ceil(K / 256)], int32: where the values of each 256 columns of a row begin.

    Returns:
        [..., N].

    Raises:
        InputError: as `int8_linear`, and for a weight that is inconsistent (its values: on a CPU).
    """
    y: Tensor = OP(x, values, bits, offsets, weight_scale, bias, input_scale, activation, out_dtype)
    return y


def _validate_weight(op: str, inputs: int, stored: tuple[Tensor, ...], weight_scale: Tensor) -> None:
    validate_scale_vector(op, weight_scale)
    values, outputs = stored[0], weight_scale.shape[0]
    if values.dim() != 1:
        raise InputError(f"{op}: values must be a vector of what is kept, not of shape {tuple(values.shape)}")
    expected: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {
        "values": (torch.int8, tuple(values.shape)),
        "bits": (torch.uint8, (outputs, -(-inputs // 8))),
        "offsets": (torch.int32, (outputs, -(-inputs // CHUNK))),
    }
    validate_stored(op, stored, expected)


def _validate_values(op: str, columns: int, values: Tensor, bits: Tensor, offsets: Tensor) -> None:
    flags = unpack_mask(bits, bits.shape[1] * 8)
    kept = flags[:, :columns]
    count = int(kept.sum())
    if count != len(values) or flags[:, columns:].any():
        raise InputError(
            f"{op}: bits mark {count} weights of {columns} columns and {int(flags.sum()) - count} beyond them, where "
            f"{len(values)} values are stored"
        )
    if not torch.equal(offsets, chunk_offsets(kept)):
        raise InputError(f"{op}: offsets are not where the values of each chunk of columns begin, by bits")


define_product(OP, BACKWARD, _validate_weight, reference.bitmask_int8_linear_tangent)


@OP.validate_values
def _(op: str, x: Tensor, *args: Any) -> None:
    _validate_values(op, x.shape[-1], *args[:3])


@BACKWARD.validate_values
def _(op: str, grad: Tensor, x: Tensor | None, *args: Any) -> None:
    _validate_values(op, args[7], *args[:3])
