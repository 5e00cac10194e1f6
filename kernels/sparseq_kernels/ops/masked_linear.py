"""`masked_linear`: a floating-point linear layer with a masked weight."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import validation as valid
from ..autograd import needed_gradients
from ..dispatch import Op
from ..flops import linear, product
from ..reference import masked_linear as reference
from ..registry import OpDefinition
from .shared.fakes import if_needed, linear_output
from .shared.mask_index import validate_block_index, validate_block_index_values

OP = Op(
    "masked_linear",
    "(Tensor x, Tensor weight, Tensor mask, Tensor? bias=None, bool regrow=False, Tensor[]? block_index=None)"
    " -> Tensor",
    reference.masked_linear,
    ("x", "weight", "bias"),
)
BACKWARD = Op(
    "masked_linear_backward",
    "(Tensor grad, Tensor x, Tensor weight, Tensor mask, bool regrow, bool[] needs, Tensor[]? block_index=None)"
    " -> (Tensor, Tensor, Tensor)",
    reference.masked_linear_backward,
)


def masked_linear(
    x: Tensor,
    weight: Tensor,
    mask: Tensor,
    bias: Tensor | None = None,
    regrow: bool = False,
    block_index: list[Tensor] | None = None,
) -> Tensor:
    """y = x (weight o mask)^T + bias, computed in x's dtype.

    The gradient of the weight is (dY^T X) o mask, or dense with `regrow`, so that masked weights can grow back.

    Args:
        x: [..., K], floating.
        weight: [N, K], floating.
        mask: [N, K] bool; True is kept.
        bias: [N], floating, or None.
        regrow: whether masked weights receive a gradient.
        block_index: `BlockIndex.tensors()` of the mask. On a GPU, blocks that keep nothing are then skipped, and values
            of x that meet skipped blocks alone do not affect y, even NaN. Ignored elsewhere.

    Returns:
        [..., N], in x's dtype.

    Raises:
        InputError: for wrong dtypes or shapes, or a block index of another mask (on a CPU).
    """
    y: Tensor = OP(x, weight, mask, bias, regrow, block_index)
    return y


@OP.validate
def _validate(
    op: str,
    x: Tensor,
    weight: Tensor,
    mask: Tensor,
    bias: Tensor | None,
    regrow: bool,
    block_index: Sequence[Tensor] | None,
) -> None:
    valid.floating(op, "x", x)
    valid.floating(op, "weight", weight)
    valid.floating(op, "bias", bias)
    valid.matrix(op, x, weight)
    valid.mask(op, mask, weight)
    valid.shape(op, "bias", bias, (weight.shape[0],))
    validate_block_index(op, block_index, mask, weight)


@BACKWARD.validate
def _validate_backward(
    op: str,
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    mask: Tensor,
    regrow: bool,
    needs: Sequence[bool],
    block_index: Sequence[Tensor] | None,
) -> None:
    valid.floating(op, "x", x)
    valid.floating(op, "weight", weight)
    valid.dtype(op, "grad", grad, x.dtype)
    valid.matrix(op, x, weight)
    valid.mask(op, mask, weight)
    valid.same_rows(op, grad, x, weight.shape[0])
    valid.needs(op, needs, "x, weight, bias")
    validate_block_index(op, block_index, mask, weight)


@OP.validate_values
def _validate_values(op: str, x: Tensor, weight: Tensor, mask: Tensor, *rest: Any) -> None:
    validate_block_index_values(op, rest[-1], mask)


@BACKWARD.validate_values
def _validate_backward_values(op: str, grad: Tensor, x: Tensor, weight: Tensor, mask: Tensor, *rest: Any) -> None:
    validate_block_index_values(op, rest[-1], mask)


@OP.fake
def _fake(x: Tensor, weight: Tensor, *rest: Any) -> Tensor:
    return linear_output(x, weight, x.dtype)


@BACKWARD.fake
def _fake_backward(
    grad: Tensor, x: Tensor, weight: Tensor, mask: Tensor, regrow: bool, needs: list[bool], block_index: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        if_needed(grad, x.shape, needs[0]),
        if_needed(grad, weight.shape, needs[1], weight.dtype),
        if_needed(grad, weight.shape[:1], needs[2]),
    )


@OP.setup_context
def _setup_context(ctx: Any, args: tuple[Any, ...], output: Any) -> None:
    x, weight, mask, bias, regrow, block_index = args
    ctx.save_for_backward(x, weight, mask, *(block_index or ()))
    ctx.regrow = regrow
    ctx.bias_dtype = None if bias is None else bias.dtype


@OP.backward
def _backward(ctx: Any, run: Any, grad: Tensor) -> Sequence[Tensor | None]:
    need_x, need_weight, _, need_bias = needed_gradients(ctx, 4)
    needs = [need_x, need_weight, need_bias and ctx.bias_dtype is not None]
    saved = ctx.saved_tensors
    grads = run(BACKWARD, grad, *saved[:3], ctx.regrow, needs, list(saved[3:]) or None)
    grad_x, grad_weight, grad_bias = (g if need else None for g, need in zip(grads, needs, strict=True))
    return grad_x, grad_weight, None, None if grad_bias is None else grad_bias.to(ctx.bias_dtype)


@OP.tangent
def _tangent(args: tuple[Any, ...], tangents: Sequence[Tensor | None]) -> Tensor:
    x, weight, mask, _, regrow, _ = args
    return reference.masked_linear_tangent(x, weight, mask, regrow, tangents[0], tangents[1], tangents[3])


@OP.autocast
def _autocast(op: OpDefinition, args: tuple[Any, ...], dtype: torch.dtype) -> tuple[Any, ...]:
    """The weight stays as it is: the op rounds it with its mask, and its gradient is not rounded."""
    x, weight, mask, bias, *rest = args
    if x.is_floating_point() and x.dtype != torch.float64:
        x, bias = x.to(dtype), bias.to(dtype) if isinstance(bias, Tensor) else bias
    return (x, weight, mask, bias, *rest)


OP.flops(linear)


@BACKWARD.flops
def _backward_flops(grad: Sequence[int], x: Any, weight: Sequence[int], *rest: Any, **_: Any) -> int:
    return product(grad, weight[0] * weight[1]) * sum(map(bool, rest[2][:2]))
