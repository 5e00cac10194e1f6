"""The reference of `masked_linear`, its backward and its forward-mode derivative."""

import torch.nn.functional as F
from torch import Tensor

from ..numerics import as_rows, masked


def masked_linear(
    x: Tensor, weight: Tensor, mask: Tensor, bias: Tensor | None, regrow: bool, block_index: list[Tensor] | None = None
) -> Tensor:
    return F.linear(x, masked(weight, mask).to(x.dtype), None if bias is None else bias.to(x.dtype))


def masked_linear_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    mask: Tensor,
    regrow: bool,
    needs: list[bool],
    block_index: list[Tensor] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    grad_x, grad_w, grad_bias = products(grad, x, masked(weight, mask).to(grad.dtype), needs)
    if needs[1]:
        grad_w = (grad_w if regrow else masked(grad_w, mask)).to(weight.dtype)
    return grad_x, grad_w, grad_bias


def masked_linear_tangent(
    x: Tensor,
    weight: Tensor,
    mask: Tensor,
    regrow: bool,
    of_x: Tensor | None,
    of_weight: Tensor | None,
    of_bias: Tensor | None,
) -> Tensor:
    """The forward-mode derivative [..., N]. `masked_linear_backward` is its transpose."""
    y = x.new_zeros(*x.shape[:-1], weight.shape[0])
    if of_x is not None:
        y = y + of_x.to(x.dtype) @ masked(weight, mask).to(x.dtype).t()
    if of_weight is not None:
        y = y + x @ (of_weight if regrow else masked(of_weight, mask)).to(x.dtype).t()
    return y if of_bias is None else y + of_bias.to(x.dtype)


def products(grad: Tensor, x: Tensor, weight: Tensor, needs: list[bool]) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x, weight and bias of a linear layer, each computed if needed and otherwise empty."""
    g, absent = as_rows(grad), grad.new_empty(0)
    return (
        (g @ weight).reshape(x.shape) if needs[0] else absent,
        (g.t() @ as_rows(x)).contiguous() if needs[1] else absent,
        g.sum(0) if needs[2] else absent,
    )
