"""`qat_linear`: the linear layer of quantization-aware training, quantized and masked."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import backends
from .. import validation as valid
from ..autograd import needed_gradients
from ..dispatch import Op, output_autocast
from ..errors import InputError
from ..flops import linear, product
from ..numerics import as_rows, check_depth, compute_dtype, result_dtype, uses_integers
from ..reference import qat_linear as reference
from .shared.fakes import if_needed, linear_output
from .shared.mask_index import validate_block_index, validate_block_index_values

DIFFERENTIABLE = ("x", "weight", "bias", "weight_scale", "input_scale")
# Returns y, and what the backward may use: quantized x and its scale, the quantized weight and its scale. Each may be
# empty (see `_saves`); those of x are where `quantized_x` has them.
OP = Op(
    "qat_linear",
    "(Tensor x, Tensor weight, Tensor? bias=None, Tensor? mask=None, Tensor? weight_scale=None, "
    "Tensor? input_scale=None, int weight_bits=8, int input_bits=8, ScalarType? out_dtype=None, bool regrow=False, "
    "Tensor[]? block_index=None, Tensor? quantized_x=None, Tensor? row_scale=None) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    reference.qat_linear,
    DIFFERENTIABLE,
)
BACKWARD = Op(
    "qat_linear_backward",
    "(Tensor grad, Tensor? x, Tensor weight, Tensor? mask, Tensor? weight_scale, Tensor? input_scale, Tensor[] saved, "
    "int weight_bits, int input_bits, ScalarType input_dtype, bool regrow, bool[] needs, Tensor[]? block_index=None)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    reference.qat_linear_backward,
)


def qat_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    weight_scale: Tensor | None = None,
    input_scale: Tensor | None = None,
    weight_bits: int = 8,
    input_bits: int = 8,
    out_dtype: torch.dtype | None = None,
    regrow: bool = False,
    block_index: list[Tensor] | None = None,
    quantized_x: Tensor | None = None,
    row_scale: Tensor | None = None,
) -> Tensor:
    """y = Q(x) Q(weight o mask)^T + bias, where Q quantizes to integers and dequantizes.

    Up to 8 bits on both sides the product is one of int8 matrices; wider integers are fake-quantized. Gradients are
    straight-through inside the clip range and zero outside (Bengio et al. 2013), and LSQ's for given scales (Esser et
    al. 2020); masked weights receive none, unless with `regrow`.

    Args:
        x: [..., K], floating.
        weight: [N, K], floating.
        bias: [N], floating, or None.
        mask: [N, K] bool, True is kept; or None.
        weight_scale: [N], floating: the scale of each output channel. None for max|w| / qmax.
        input_scale: one value, floating. None for a scale a row, max|x| / qmax.
        weight_bits, input_bits: 2 to 16.
        out_dtype: of y; x's own if None, autocast's under autocast.
        regrow: whether masked weights receive the dense gradient.
        block_index: as in `masked_linear`.
        quantized_x, row_scale: what `quantize_rows(x, input_bits)` returned, so that layers with one input share its
            quantization; None to quantize x here. Not beside input_scale, and up to 8 bits.

    Returns:
        [..., N].

    Raises:
        InputError: for wrong dtypes, shapes or bits, or a block index of another mask (on a CPU).
    """
    settings = (weight_scale, input_scale, weight_bits, input_bits, out_dtype, regrow, block_index)
    y: Tensor = OP(x, weight, bias, mask, *settings, quantized_x, row_scale)[0]
    return y


@OP.validate
def _validate(
    op: str,
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
    block_index: Sequence[Tensor] | None,
    quantized_x: Tensor | None,
    row_scale: Tensor | None,
) -> None:
    valid.floating(op, "x", x)
    valid.matrix(op, x, weight)
    valid.floating(op, "bias", bias)
    valid.shape(op, "bias", bias, (weight.shape[0],))
    valid.floating_dtype(op, "out_dtype", out_dtype)
    _validate_weight(op, weight, mask, weight_scale, input_scale, weight_bits, input_bits, block_index)
    if quantized_x is None and row_scale is None:
        return
    if input_scale is not None or not uses_integers(weight_bits, input_bits):
        raise InputError(f"{op}: quantized_x is for scales by row and up to 8 bits: leave it out")
    for name, tensor, shape, dtype in (
        ("quantized_x", quantized_x, x.shape, torch.int8),
        ("row_scale", row_scale, x.shape[:-1], compute_dtype(x)),
    ):
        if tensor is None or tensor.shape != shape or tensor.dtype != dtype:
            found = "None" if tensor is None else f"{tensor.dtype} of shape {tuple(tensor.shape)}"
            raise InputError(
                f"{op}: {name} must be {dtype} of shape {tuple(shape)}, as quantize_rows(x, input_bits) returns it, "
                f"not {found}"
            )


def _validate_weight(
    op: str,
    weight: Tensor,
    mask: Tensor | None,
    weight_scale: Tensor | None,
    input_scale: Tensor | None,
    weight_bits: int,
    input_bits: int,
    block_index: Sequence[Tensor] | None,
) -> None:
    valid.floating(op, "weight", weight)
    valid.mask(op, mask, weight)
    valid.floating(op, "weight_scale", weight_scale)
    valid.shape(op, "weight_scale", weight_scale, (weight.shape[0],))
    valid.one_value(op, "input_scale", input_scale)
    valid.bits(op, "weight_bits", weight_bits)
    valid.bits(op, "input_bits", input_bits)
    if uses_integers(weight_bits, input_bits):
        check_depth(weight.shape[1])
    validate_block_index(op, block_index, mask, weight)


@BACKWARD.validate
def _validate_backward(
    op: str,
    grad: Tensor,
    x: Tensor | None,
    weight: Tensor,
    mask: Tensor | None,
    weight_scale: Tensor | None,
    input_scale: Tensor | None,
    saved: Sequence[Tensor],
    weight_bits: int,
    input_bits: int,
    input_dtype: torch.dtype,
    regrow: bool,
    needs: Sequence[bool],
    block_index: Sequence[Tensor] | None,
) -> None:
    valid.floating(op, "grad", grad)
    valid.rows(op, "grad", grad)
    if weight.dim() != 2:
        raise InputError(f"{op}: weight must be a matrix, not of shape {tuple(weight.shape)}")
    valid.same_rows(op, grad, grad, weight.shape[0])
    _validate_weight(op, weight, mask, weight_scale, input_scale, weight_bits, input_bits, block_index)
    valid.floating_dtype(op, "input_dtype", input_dtype)
    valid.needs(op, needs, ", ".join(DIFFERENTIABLE))
    if x is not None:
        valid.dtype(op, "x", x, input_dtype)
        valid.matrix(op, x, weight)
        valid.same_rows(op, grad, x, weight.shape[0])
    elif weight_scale is not None or input_scale is not None or not uses_integers(weight_bits, input_bits):
        raise InputError(
            f"{op}: x must be given beside learned scales or more than 8 bits: its quantized values are not enough"
        )
    _validate_saved(op, saved, grad, x is None, weight, input_dtype)


_SAVED = ("quantized x", "x's scale", "quantized weight", "the weight's scale")


def _validate_saved(
    op: str, saved: Sequence[Tensor], grad: Tensor, wanted: bool, weight: Tensor, input_dtype: torch.dtype
) -> None:
    """The four tensors that `qat_linear` returned beside y, or none; each may be empty, unless it is `wanted`."""
    if not saved and not wanted:
        return
    if len(saved) != len(_SAVED):
        raise InputError(f"{op}: saved must be the 4 tensors that qat_linear returned beside y, not {len(saved)}")
    # A product of sizes, not numel(): their number is unknown where shapes are symbolic.
    count = grad.shape[:-1].numel()
    (outputs, inputs), scales = weight.shape, torch.float64 if input_dtype == torch.float64 else torch.float32
    shapes: tuple[tuple[int, ...], ...] = ((count, inputs), (count,), (outputs, inputs), (outputs,))
    dtypes = (torch.int8, scales, torch.int8, compute_dtype(weight))
    for name, tensor, expected, dtype in zip(_SAVED, saved, shapes, dtypes, strict=True):
        right = tensor.shape == expected or (not wanted and tensor.dim() == 1 and tensor.numel() == 0)
        if not right or tensor.dtype != dtype:
            raise InputError(
                f"{op}: of the saved tensors {name} must be {dtype} of shape {expected}, not {tensor.dtype} of "
                f"{tuple(tensor.shape)}: hand on what qat_linear returned, on the backend of this call"
            )


@OP.validate_values
def _validate_values(op: str, x: Tensor, weight: Tensor, bias: Any, mask: Tensor | None, *rest: Any) -> None:
    validate_block_index_values(op, rest[6], mask)


@BACKWARD.validate_values
def _validate_backward_values(op: str, grad: Tensor, x: Any, weight: Tensor, mask: Tensor | None, *rest: Any) -> None:
    validate_block_index_values(op, rest[-1], mask)


def _saves(args: tuple[Any, ...]) -> tuple[bool, bool, bool]:
    """Whether the forward saves (quantized operands, x's scale, the weight's scale), by its backend's `saves`.

    "quantized": quantized operands and their scales, unless a scale is learned or there are more than 8 bits. The
    backward needs no x then, which has four times the bytes. "scales": scales from a maximum alone, by which the
    backward quantizes again. "nothing": it also finds the scales again.
    """
    x, weight, bias, _, weight_scale, input_scale, weight_bits, input_bits = args[:8]
    saves = backends.saves(OP, x.device.type, (x, weight, bias, weight_scale, input_scale))
    if saves == "scales":
        return False, input_scale is None, weight_scale is None
    learned = weight_scale is not None or input_scale is not None
    quantized = saves == "quantized" and uses_integers(weight_bits, input_bits) and not learned
    return quantized, quantized, quantized


@OP.fake
def _fake(*args: Any) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    x, weight, out_dtype, given = args[0], args[1], args[8], args[11]
    quantized, x_scale, w_scale = _saves(args)
    found = given is None  # No result of an op may be one of its arguments.
    rows, (outputs, inputs) = math.prod(x.shape[:-1]), weight.shape

    def new(shape: tuple[int, ...], dtype: torch.dtype, saved: bool) -> Tensor:
        return torch.empty(shape if saved else 0, dtype=dtype, device=x.device)

    return (
        linear_output(x, weight, result_dtype(x, out_dtype)),
        new((rows, inputs), torch.int8, quantized and found),
        new((rows,), compute_dtype(x), x_scale and found),
        new((outputs, inputs), torch.int8, quantized),
        new((outputs,), compute_dtype(weight), w_scale),
    )


@BACKWARD.fake
def _fake_backward(
    grad: Tensor,
    x: Tensor | None,
    weight: Tensor,
    mask: Tensor | None,
    weight_scale: Tensor | None,
    input_scale: Tensor | None,
    saved: list[Tensor],
    weight_bits: int,
    input_bits: int,
    input_dtype: torch.dtype,
    regrow: bool,
    needs: list[bool],
    block_index: list[Tensor] | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    learned_weight = weight_scale is not None and (needs[1] or needs[3])
    learned_input = input_scale is not None and (needs[0] or needs[4])
    scale_shape = () if input_scale is None else input_scale.shape
    return (
        if_needed(grad, (*grad.shape[:-1], weight.shape[1]), needs[0] or needs[4], input_dtype),
        if_needed(grad, weight.shape, needs[1] or needs[3], weight.dtype),
        if_needed(grad, weight.shape[:1], needs[2], compute_dtype(grad)),
        if_needed(grad, weight.shape[:1], learned_weight, None if weight_scale is None else weight_scale.dtype),
        if_needed(grad, scale_shape, learned_input, None if input_scale is None else input_scale.dtype),
    )


@OP.setup_context
def _setup_context(ctx: Any, args: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, weight, bias, mask, weight_scale, input_scale, weight_bits, input_bits, _, regrow, block_index = args[:11]
    quantized_x, row_scale = args[11:]
    ctx.mark_non_differentiable(*output[1:])
    quantized, has_x_scale, _ = _saves(args)
    _, x_q, x_scale, *of_weight = output
    # In the shapes of what the op would have returned: a checkpoint's second forward may save the one or the other.
    if quantized and quantized_x is not None:
        x_q = as_rows(quantized_x)
    if has_x_scale and row_scale is not None:
        x_scale = row_scale.reshape(-1)
    saved = (x_q, x_scale, *of_weight)
    x_or_none = None if quantized else x
    ctx.save_for_backward(x_or_none, weight, mask, weight_scale, input_scale, *saved, *(block_index or ()))
    ctx.settings = (weight_bits, input_bits, x.dtype, regrow)
    ctx.bias_dtype = None if bias is None else bias.dtype


@OP.backward
def _backward(ctx: Any, run: Any, grad: Tensor) -> Sequence[Tensor | None]:
    need_x, need_weight, need_bias, _, need_weight_scale, need_input_scale = needed_gradients(ctx, 6)
    needs = [need_x, need_weight, need_bias and ctx.bias_dtype is not None, need_weight_scale, need_input_scale]
    saved = ctx.saved_tensors
    block_index = list(saved[9:]) or None
    grads = run(BACKWARD, grad, *saved[:5], list(saved[5:9]), *ctx.settings, needs, block_index)
    x, weight, bias, weight_scale, input_scale = (g if need else None for g, need in zip(grads, needs, strict=True))
    return x, weight, None if bias is None else bias.to(ctx.bias_dtype), None, weight_scale, input_scale


@OP.tangent
def _tangent(args: tuple[Any, ...], tangents: Sequence[Tensor | None]) -> Tensor:
    x, weight, _, mask, weight_scale, input_scale, weight_bits, input_bits, _, regrow = args[:10]
    settings = (weight_scale, input_scale, weight_bits, input_bits, regrow)
    return reference.qat_linear_tangent(x, weight, mask, *settings, [*tangents[:3], *tangents[4:6]])


OP.autocast(output_autocast)
OP.flops(linear)


@BACKWARD.flops
def _backward_flops(grad: Sequence[int], x: Any, weight: Sequence[int], *rest: Any, **_: Any) -> int:
    needs = rest[8]
    return product(grad, weight[0] * weight[1]) * (bool(needs[0] or needs[4]) + bool(needs[1] or needs[3]))
