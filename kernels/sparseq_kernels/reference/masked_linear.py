import torch.nn.functional as F
from torch import Tensor

from .qat_linear import masked


def masked_linear(x: Tensor, weight: Tensor, mask: Tensor, bias: Tensor | None, regrow: bool) -> Tensor:
    return F.linear(x, masked(weight, mask), bias)


def masked_linear_backward(
    grad: Tensor, x: Tensor, weight: Tensor, mask: Tensor, regrow: bool, needs: list[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    g = grad.reshape(-1, weight.shape[0])
    absent = grad.new_empty(0)
    grad_x = (g @ masked(weight, mask)).reshape(x.shape) if needs[0] else absent
    grad_w = absent
    if needs[1]:
        product = g.t() @ x.reshape(-1, x.shape[-1])
        grad_w = product if regrow else masked(product, mask)
    return grad_x, grad_w, g.sum(0) if needs[2] else absent
