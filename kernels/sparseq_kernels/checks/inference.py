"""The arguments of the ops that serve packed layers: int8 products, look-ups, and what feeds them."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..errors import InputError
from ..numerics import CHUNK
from ..reference.int8_linear import ACTIVATIONS, check_depth, given_scale
from .arguments import bits as check_bits
from .arguments import choice, dtype, floating, floating_dtype, matrix, needs, one_value, rows, shape

SIDES = (16, 32, 64, 128)
INDICES = frozenset(getattr(torch, f"{sign}int{size}") for sign in ("", "u") for size in (8, 16, 32, 64))


def layer_norm_quantize_rows(
    x: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor, eps: float, bits: int
) -> None:
    op = "layer_norm_quantize_rows"
    floating(op, "x", x)
    rows(op, "x", x)
    for name, tensor in (("weight", weight), ("bias", bias)):
        floating(op, name, tensor)
        shape(op, name, tensor, x.shape[-1:])
    floating(op, "residual", residual)
    shape(op, "residual", residual, x.shape)
    if not (0 <= eps < math.inf):
        raise InputError(f"{op}: eps must be a finite number of at least 0, not {eps}")
    check_bits(op, "bits", bits)


def gelu_quantize_rows(x: Tensor, approximate: str, bits: int) -> None:
    op = "gelu_quantize_rows"
    floating(op, "x", x)
    rows(op, "x", x)
    choice(op, "approximation", approximate, ("none", "tanh"))
    check_bits(op, "bits", bits)


def int8_linear(
    x: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    input_scale: Tensor | None,
    activation: str,
    out_dtype: torch.dtype | None,
    output_scale: Tensor | None,
) -> None:
    op = "int8_linear"
    matrix(op, x, weight)
    dtype(op, "weight", weight, torch.int8)
    shape(op, "weight_scale", weight_scale, (weight.shape[0],))
    one_value(op, "output_scale", output_scale)
    _product(op, x, weight_scale, bias, input_scale, activation, out_dtype)


def _product(
    op: str,
    x: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    input_scale: Tensor | None,
    activation: str,
    out_dtype: torch.dtype | None,
) -> None:
    """What the int8 products have in common, x [..., K] and weight_scale [N]."""
    if x.dtype == torch.int8:
        _input_scale(op, given_scale(input_scale), x.shape[:-1].numel())
    else:
        floating(op, "x", x)
        one_value(op, "input_scale", input_scale)
    _weight_side(op, x.shape[-1], weight_scale, bias)
    choice(op, "activation", activation, ACTIVATIONS)
    floating_dtype(op, "out_dtype", out_dtype)


def _weight_side(op: str, inputs: int, weight_scale: Tensor, bias: Tensor | None) -> None:
    check_depth(inputs)
    floating(op, "weight_scale", weight_scale)
    floating(op, "bias", bias)
    shape(op, "bias", bias, weight_scale.shape)


def _input_scale(op: str, scale: Tensor, count: int) -> None:
    floating(op, "input_scale", scale)
    if not (scale.numel() == count or scale.numel() == 1):
        each = f" or one for each of {count} rows" if count != 1 else ""
        raise InputError(f"{op}: input_scale must be one value{each}, not {scale.numel()}")


def block_sparse_int8_linear(
    x: Tensor,
    values: Tensor,
    block_columns: Tensor,
    offsets: Tensor,
    order: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    input_scale: Tensor | None,
    activation: str,
    out_dtype: torch.dtype | None,
) -> None:
    op = "block_sparse_int8_linear"
    rows(op, "x", x)
    _stored("block_sparse", op, x.shape[-1], (values, block_columns, offsets, order), weight_scale)
    _product(op, x, weight_scale, bias, input_scale, activation, out_dtype)


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
) -> None:
    op = "bitmask_int8_linear"
    rows(op, "x", x)
    _stored("bitmask", op, x.shape[-1], (values, bits, offsets), weight_scale)
    _product(op, x, weight_scale, bias, input_scale, activation, out_dtype)


def semi_structured_int8_linear(
    x: Tensor,
    values: Tensor,
    indices: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    input_scale: Tensor | None,
    activation: str,
    out_dtype: torch.dtype | None,
) -> None:
    op = "semi_structured_int8_linear"
    rows(op, "x", x)
    _stored("semi_structured", op, x.shape[-1], (values, indices), weight_scale)
    _product(op, x, weight_scale, bias, input_scale, activation, out_dtype)


def int8_linear_backward(
    grad: Tensor,
    x: Tensor | None,
    stored: Sequence[Tensor],
    format: str,
    weight_scale: Tensor,
    bias: Tensor | None,
    input_scale: Tensor | None,
    activation: str,
    in_features: int,
    input_dtype: torch.dtype,
    given_needs: Sequence[bool],
) -> None:
    op = "int8_linear_backward"
    choice(op, "format", format, STORED)
    _stored(format, op, in_features, stored, weight_scale)
    floating(op, "grad", grad)
    rows(op, "grad", grad)
    shape(op, "grad", grad, (*grad.shape[:-1], weight_scale.shape[0]))
    needs(op, given_needs, "x, bias")
    if given_needs[0]:
        floating_dtype(op, "input_dtype", input_dtype)
    if x is not None:
        dtype(op, "x", x, input_dtype)
        shape(op, "x", x, (*grad.shape[:-1], in_features))
        _product(op, x, weight_scale, bias, input_scale, activation, None)
        return
    if input_scale is not None or activation != "none":
        raise InputError(f"{op}: x must be given beside an activation or an input_scale")
    _weight_side(op, in_features, weight_scale, bias)


# What a weight's tensors are called, and their dtypes, by format.
STORED: Mapping[str, Mapping[str, torch.dtype]] = {
    "dense": {"weight": torch.int8},
    "block_sparse": {
        "values": torch.int8,
        "block_columns": torch.int32,
        "offsets": torch.int32,
        "order": torch.int32,
    },
    "bitmask": {"values": torch.int8, "bits": torch.uint8, "offsets": torch.int32},
    "semi_structured": {"values": torch.int8, "indices": torch.uint8},
}


def _stored(format: str, op: str, inputs: int, stored: Sequence[Tensor], weight_scale: Tensor) -> None:
    """The tensors of a weight [N, inputs] as it is stored."""
    expected = STORED[format]
    if len(stored) != len(expected):
        raise InputError(
            f"{op}: a {format} weight is {', '.join(expected)}: {len(expected)} tensors, not {len(stored)}"
        )
    if weight_scale.dim() != 1:
        raise InputError(f"{op}: weight_scale must be a vector, not of shape {tuple(weight_scale.shape)}")
    shapes = _shapes(format, op, stored[0], weight_scale.shape[0], inputs)
    for tensor, (name, kind) in zip(stored, expected.items(), strict=True):
        dtype(op, name, tensor, kind)
        shape(op, name, tensor, shapes[name])


def _shapes(format: str, op: str, values: Tensor, outputs: int, inputs: int) -> dict[str, tuple[int, ...]]:
    if format == "dense":
        return {"weight": (outputs, inputs)}
    if format == "bitmask":
        if values.dim() != 1:
            raise InputError(f"{op}: values must be a vector of what is kept, not of shape {tuple(values.shape)}")
        chunks, octets = -(-inputs // CHUNK), -(-inputs // 8)
        return {"values": tuple(values.shape), "bits": (outputs, octets), "offsets": (outputs, chunks)}
    if format == "semi_structured":
        if inputs % 4:
            raise InputError(f"{op}: in_features must be a multiple of 4, not {inputs}")
        return {"values": (outputs, inputs // 2), "indices": (outputs, -(-inputs // 8))}
    if values.dim() != 3 or any(side not in SIDES for side in values.shape[1:]):
        raise InputError(
            f"{op}: values must be [blocks, R, C] with R and C of 16, 32, 64 or 128, not {tuple(values.shape)}"
        )
    blocks, r, c = values.shape
    if outputs % r or inputs % c:
        raise InputError(f"{op}: blocks of {r} x {c} do not divide a weight of {outputs} x {inputs}")
    return {
        "values": (blocks, r, c),
        "block_columns": (blocks,),
        "offsets": (outputs // r + 1,),
        "order": (outputs // r,),
    }


def int8_embedding(indices: Tensor, weight: Tensor, scale: Tensor, out_dtype: torch.dtype | None) -> None:
    op = "int8_embedding"
    if indices.dtype not in INDICES:
        raise InputError(f"{op}: indices must be integers, not {indices.dtype}")
    if weight.dtype not in (torch.int8, torch.int16):
        raise InputError(f"{op}: weight must be int8 or int16, not {weight.dtype}")
    if weight.dim() != 2:
        raise InputError(f"{op}: weight must be a matrix, a row for each index, not of shape {tuple(weight.shape)}")
    floating(op, "scale", scale)
    shape(op, "scale", scale, (weight.shape[0],))
    floating_dtype(op, "out_dtype", out_dtype)
