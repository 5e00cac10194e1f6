import torch.nn.functional as F
from torch import Tensor

from ..numerics import as_rows
from .qat_linear import masked


def masked_linear(
    x: Tensor, weight: Tensor, mask: Tensor, bias: Tensor | None, regrow: bool, tiles: list[Tensor] | None = None
) -> Tensor:
    return F.linear(x, masked(weight, mask).to(x.dtype), None if bias is None else bias.to(x.dtype))


def masked_linear_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    mask: Tensor,
    regrow: bool,
    needs: list[bool],
    tiles: list[Tensor] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    grad_x, grad_w, grad_bias = products(grad, x, masked(weight, mask).to(grad.dtype), needs)
    if needs[1]:
        grad_w = (grad_w if regrow else masked(grad_w, mask)).to(weight.dtype)
    return grad_x, grad_w, grad_bias


def products(grad: Tensor, x: Tensor, weight: Tensor, needs: list[bool]) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x, weight and bias of a linear layer, each computed if needed and otherwise empty."""
    g, absent = as_rows(grad), grad.new_empty(0)
    return (
        (g @ weight).reshape(x.shape) if needs[0] else absent,
        (g.t() @ as_rows(x)).contiguous() if needs[1] else absent,
        g.sum(0) if needs[2] else absent,
    )
