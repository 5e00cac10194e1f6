"""`int8_embedding`: a lookup in a quantized table."""

from typing import Any

import torch
from torch import Tensor

from .. import validation as valid
from ..dispatch import Op
from ..errors import InputError, InputIndexError
from ..reference.int8_embedding import int8_embedding as formula

OP = Op(
    "int8_embedding",
    "(Tensor indices, Tensor weight, Tensor scale, ScalarType? out_dtype=None) -> Tensor",
    formula,
    no_gradient="has no gradient: detach the scale",
)
INDICES = frozenset(getattr(torch, f"{sign}int{size}") for sign in ("", "u") for size in (8, 16, 32, 64))


def int8_embedding(indices: Tensor, weight: Tensor, scale: Tensor, out_dtype: torch.dtype | None = None) -> Tensor:
    """weight[indices] * scale[indices]: rows of a quantized table, dequantized.

    Args:
        indices: [...], any integer dtype, each in [0, V).
        weight: [V, D], int8 or int16.
        scale: [V], floating.
        out_dtype: of the result; the scale's own if None.

    Returns:
        [..., D].

    Raises:
        InputError: for wrong dtypes or shapes.
        InputIndexError: for an index that is out of range (on a CPU; of a GPU kernel its row is NaN).
    """
    rows: Tensor = OP(indices, weight, scale, out_dtype)
    return rows


@OP.validate
def _validate(op: str, indices: Tensor, weight: Tensor, scale: Tensor, out_dtype: torch.dtype | None) -> None:
    if indices.dtype not in INDICES:
        raise InputError(f"{op}: indices must be integers, not {indices.dtype}")
    if weight.dtype not in (torch.int8, torch.int16):
        raise InputError(f"{op}: weight must be int8 or int16, not {weight.dtype}")
    if weight.dim() != 2:
        raise InputError(f"{op}: weight must be a matrix, a row for each index, not of shape {tuple(weight.shape)}")
    valid.floating(op, "scale", scale)
    valid.shape(op, "scale", scale, (weight.shape[0],))
    valid.floating_dtype(op, "out_dtype", out_dtype)


@OP.validate_values
def check_indices(op: str, indices: Tensor, weight: Tensor, *_: Any) -> None:
    """Raises InputIndexError for an index that is negative or beyond the last row."""
    if indices.numel() == 0:
        return
    least, most = (int(end) for end in indices.long().aminmax())
    if least < 0 or most >= weight.shape[0]:
        wrong = least if least < 0 else most
        raise InputIndexError(f"{op}: index {wrong} is outside [0, {weight.shape[0]}), the rows of the weight")


@OP.fake
def _fake(indices: Tensor, weight: Tensor, scale: Tensor, out_dtype: torch.dtype | None) -> Tensor:
    return torch.empty((*indices.shape, weight.shape[1]), dtype=out_dtype or scale.dtype, device=weight.device)
