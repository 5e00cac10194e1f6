"""`block_sparse_int8_linear`: `int8_linear` with a weight of which whole blocks are kept."""

from typing import Any

import torch
from torch import Tensor

from ..dispatch import Op
from ..errors import InputError
from ..reference import block_sparse_int8_linear as reference
from .shared.int8_products import backward_schema, define_product, schema, validate_scale_vector, validate_stored

WEIGHT = "Tensor values, Tensor block_columns, Tensor offsets, Tensor order"
SIDES = (16, 32, 64, 128)
"""Sides of blocks that matrix units multiply as they are."""

OP = Op("block_sparse_int8_linear", schema(WEIGHT), reference.block_sparse_int8_linear, ("x", "bias"))
BACKWARD = Op("block_sparse_int8_linear_backward", backward_schema(WEIGHT), reference.block_sparse_int8_linear_backward)


def block_sparse_int8_linear(
    x: Tensor,
    values: Tensor,
    block_columns: Tensor,
    offsets: Tensor,
    order: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None = None,
    input_scale: Tensor | None = None,
    activation: str = "none",
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    """`int8_linear` with a weight [N, K] in blocks of R x C, of which some are kept (block CSR).

    Args:
        x, weight_scale, bias, input_scale, activation, out_dtype: as in `int8_linear`.
        values: [blocks, R, C], int8: the kept blocks, row by row of blocks. R and C are 16, 32, 64 or 128.
        block_columns: [blocks], int32: the column of blocks of each, ascending within a row of blocks.
        offsets: [N / R + 1], int32: where each row of blocks begins in `values`.
        order: [N / R], int32: the rows of blocks, those with most blocks first.

    Returns:
        [..., N].

    Raises:
        InputError: as `int8_linear`, and for a weight that is inconsistent (its values: on a CPU).
    """
    stored = (values, block_columns, offsets, order)
    y: Tensor = OP(x, *stored, weight_scale, bias, input_scale, activation, out_dtype)
    return y


def _validate_weight(op: str, inputs: int, stored: tuple[Tensor, ...], weight_scale: Tensor) -> None:
    validate_scale_vector(op, weight_scale)
    values, outputs = stored[0], weight_scale.shape[0]
    if values.dim() != 3 or any(side not in SIDES for side in values.shape[1:]):
        raise InputError(
            f"{op}: values must be [blocks, R, C] with R and C of 16, 32, 64 or 128, not {tuple(values.shape)}"
        )
    blocks, r, c = values.shape
    if outputs % r or inputs % c:
        raise InputError(f"{op}: blocks of {r} x {c} do not divide a weight of {outputs} x {inputs}")
    expected: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {
        "values": (torch.int8, (blocks, r, c)),
        "block_columns": (torch.int32, (blocks,)),
        "offsets": (torch.int32, (outputs // r + 1,)),
        "order": (torch.int32, (outputs // r,)),
    }
    validate_stored(op, stored, expected)


def _validate_values(
    op: str, columns: int, values: Tensor, block_columns: Tensor, offsets: Tensor, order: Tensor
) -> None:
    blocks, width = len(values), columns // values.shape[2]
    lengths = offsets.diff()
    if int(offsets[0]) or int(offsets[-1]) != blocks or (lengths < 0).any():
        raise InputError(f"{op}: offsets must rise from 0 to {blocks}, the number of blocks")
    if blocks and (int(block_columns.min()) < 0 or int(block_columns.max()) >= width):
        raise InputError(f"{op}: block_columns must be in [0, {width}), of a weight with {columns} columns")
    rows = torch.repeat_interleave(torch.arange(len(lengths), dtype=torch.int64, device=values.device), lengths.long())
    if ((rows * width + block_columns).diff() <= 0).any():
        raise InputError(f"{op}: block_columns must rise within each row of blocks, no column twice")
    if not torch.equal(order.long().sort().values, torch.arange(len(order), dtype=torch.int64, device=order.device)):
        raise InputError(f"{op}: order must hold each of {len(order)} rows of blocks once")


define_product(OP, BACKWARD, _validate_weight, reference.block_sparse_int8_linear_tangent)


@OP.validate_values
def _(op: str, x: Tensor, *args: Any) -> None:
    _validate_values(op, x.shape[-1], *args[:4])


@BACKWARD.validate_values
def _(op: str, grad: Tensor, x: Tensor | None, *args: Any) -> None:
    _validate_values(op, args[8], *args[:4])
