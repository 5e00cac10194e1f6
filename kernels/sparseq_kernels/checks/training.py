"""The arguments of the ops that train: quantizing, masks, and linear layers with their backwards."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..block_index import layout
from ..errors import InputError
from ..numerics import compute_dtype
from ..reference.int8_linear import check_depth
from ..reference.magnitude_mask import checked
from ..reference.qat_linear import uses_integers
from .arguments import bits as check_bits
from .arguments import dtype, floating, floating_dtype, matrix, needs, one_value, rows, same_rows, shape


def quantize_rows(x: Tensor, bits: int) -> None:
    op = "quantize_rows"
    floating(op, "x", x)
    rows(op, "x", x)
    check_bits(op, "bits", bits)


def fake_quant(x: Tensor, scale: Tensor, bits: int) -> None:
    _fake_quant("fake_quant", x, scale, bits)


def fake_quant_backward(grad: Tensor, x: Tensor, scale: Tensor, bits: int) -> None:
    op = "fake_quant_backward"
    floating(op, "grad", grad)
    shape(op, "grad", grad, x.shape)
    _fake_quant(op, x, scale, bits)


def _fake_quant(op: str, x: Tensor, scale: Tensor, bits: int) -> None:
    floating(op, "x", x)
    floating(op, "scale", scale)
    check_bits(op, "bits", bits)
    missing = x.dim() - scale.dim()
    # A single value needs no look at x, whose shape may be symbolic.
    fits = scale.dim() == 0 or (
        missing >= 0 and all(s == n or s == 1 for s, n in zip(scale.shape, x.shape[missing:], strict=True))
    )
    if not fits:
        raise InputError(f"{op}: a scale of shape {tuple(scale.shape)} does not broadcast to x's, {tuple(x.shape)}")


def qat_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    weight_scale: Tensor | None,
    input_scale: Tensor | None,
    weight_bits: int,
    input_bits: int,
    out_dtype: torch.dtype | None,
    regrow: bool,
    tiles: Sequence[Tensor] | None,
) -> None:
    op = "qat_linear"
    floating(op, "x", x)
    matrix(op, x, weight)
    floating(op, "bias", bias)
    shape(op, "bias", bias, (weight.shape[0],))
    floating_dtype(op, "out_dtype", out_dtype)
    _quantized_weight(op, weight, mask, weight_scale, input_scale, weight_bits, input_bits, tiles)


def _quantized_weight(
    op: str,
    weight: Tensor,
    mask: Tensor | None,
    weight_scale: Tensor | None,
    input_scale: Tensor | None,
    weight_bits: int,
    input_bits: int,
    tiles: Sequence[Tensor] | None,
) -> None:
    floating(op, "weight", weight)
    _mask(op, mask, weight)
    floating(op, "weight_scale", weight_scale)
    shape(op, "weight_scale", weight_scale, (weight.shape[0],))
    one_value(op, "input_scale", input_scale)
    check_bits(op, "weight_bits", weight_bits)
    check_bits(op, "input_bits", input_bits)
    if uses_integers(weight_bits, input_bits):
        check_depth(weight.shape[1])
    _tiles(op, tiles, mask, weight)


def qat_linear_backward(
    grad: Tensor,
    x: Tensor | None,
    weight: Tensor,
    mask: Tensor | None,
    weight_scale: Tensor | None,
    input_scale: Tensor | None,
    residuals: Sequence[Tensor],
    weight_bits: int,
    input_bits: int,
    input_dtype: torch.dtype,
    regrow: bool,
    given_needs: Sequence[bool],
    tiles: Sequence[Tensor] | None,
) -> None:
    op = "qat_linear_backward"
    floating(op, "grad", grad)
    rows(op, "grad", grad)
    if weight.dim() != 2:
        raise InputError(f"{op}: weight must be a matrix, not of shape {tuple(weight.shape)}")
    same_rows(op, grad, grad, weight.shape[0])
    _quantized_weight(op, weight, mask, weight_scale, input_scale, weight_bits, input_bits, tiles)
    floating_dtype(op, "input_dtype", input_dtype)
    needs(op, given_needs, "x, weight, bias, weight_scale, input_scale")
    if x is not None:
        dtype(op, "x", x, input_dtype)
        matrix(op, x, weight)
        same_rows(op, grad, x, weight.shape[0])
    elif weight_scale is not None or input_scale is not None or not uses_integers(weight_bits, input_bits):
        raise InputError(f"{op}: x must be given beside learned scales or more than 8 bits: its integers do not do")
    _residuals(op, residuals, grad, x is None, weight, input_dtype)


_RESIDUALS = ("x's levels", "x's scale", "the weight's levels", "the weight's scale")


def _residuals(
    op: str, residuals: Sequence[Tensor], grad: Tensor, wanted: bool, weight: Tensor, input_dtype: torch.dtype
) -> None:
    """The four tensors that `qat_linear` returned beside y, or none; each may be empty, unless it is `wanted`."""
    if not residuals and not wanted:
        return
    if len(residuals) != len(_RESIDUALS):
        raise InputError(f"{op}: residuals must be the 4 tensors that qat_linear returned, not {len(residuals)}")
    # Unknown in number where shapes are symbolic, hence a product and no numel().
    count = grad.shape[:-1].numel()
    (outputs, inputs), scales = weight.shape, torch.float64 if input_dtype == torch.float64 else torch.float32
    shapes: tuple[tuple[int, ...], ...] = ((count, inputs), (count,), (outputs, inputs), (outputs,))
    dtypes = (torch.int8, scales, torch.int8, compute_dtype(weight))
    for name, tensor, expected, kind in zip(_RESIDUALS, residuals, shapes, dtypes, strict=True):
        right = tensor.shape == expected or (not wanted and tensor.dim() == 1 and tensor.numel() == 0)
        if not right or tensor.dtype != kind:
            raise InputError(
                f"{op}: of the residuals {name} must be {kind} of shape {expected}, not {tensor.dtype} of "
                f"{tuple(tensor.shape)}: hand on what qat_linear returned, on the backend of this call"
            )


def masked_linear(
    x: Tensor,
    weight: Tensor,
    mask: Tensor,
    bias: Tensor | None,
    regrow: bool,
    tiles: Sequence[Tensor] | None,
) -> None:
    op = "masked_linear"
    floating(op, "x", x)
    floating(op, "weight", weight)
    floating(op, "bias", bias)
    matrix(op, x, weight)
    _mask(op, mask, weight)
    shape(op, "bias", bias, (weight.shape[0],))
    _tiles(op, tiles, mask, weight)


def masked_linear_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    mask: Tensor,
    regrow: bool,
    given_needs: Sequence[bool],
    tiles: Sequence[Tensor] | None,
) -> None:
    op = "masked_linear_backward"
    floating(op, "x", x)
    floating(op, "weight", weight)
    dtype(op, "grad", grad, x.dtype)
    matrix(op, x, weight)
    _mask(op, mask, weight)
    same_rows(op, grad, x, weight.shape[0])
    needs(op, given_needs, "x, weight, bias")
    _tiles(op, tiles, mask, weight)


def magnitude_mask(weights: Sequence[Tensor], sparsity: float, pattern: str) -> None:
    for weight in weights:
        floating("magnitude_mask", "every weight", weight)
    checked(list(weights), sparsity, pattern)


def _mask(op: str, mask: Tensor | None, weight: Tensor) -> None:
    if mask is not None:
        shape(op, "mask", mask, weight.shape)
        dtype(op, "mask", mask, torch.bool)


def _tiles(op: str, tiles: Sequence[Tensor] | None, mask: Tensor | None, weight: Tensor) -> None:
    if tiles is None:
        return
    # Sizes that are symbols cannot be looked up.
    find = layout if all(size.__class__ is int for size in weight.shape) else layout.__wrapped__
    expected = find(*weight.shape)
    if mask is None:
        raise InputError(f"{op}: tiles are a mask's: give the mask, too")
    if len(tiles) != len(expected):
        raise InputError(f"{op}: tiles must be the {len(expected)} tensors of BlockIndex.tensors(), not {len(tiles)}")
    for tensor, (name, (size, kind)) in zip(tiles, expected.items(), strict=True):
        if tensor.shape != size or tensor.dtype != kind or not tensor.is_contiguous():
            raise InputError(
                f"{op}: of a weight of shape {tuple(weight.shape)} the tiles' {name} must be {kind}, contiguous and "
                f"of shape {size}, not {tensor.dtype} of {tuple(tensor.shape)}: make BlockIndex of this weight's mask"
            )
