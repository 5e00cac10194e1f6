import torch
import torch.nn.functional as F
from torch import Tensor

from ..reference import masked_linear as reference
from . import native as compiled


def masked_linear(
    x: Tensor,
    weight: Tensor,
    mask: Tensor,
    bias: Tensor | None,
    regrow: bool,
    tiles: list[Tensor] | None = None,
    *,
    native: bool,
) -> Tensor:
    if native and weight.dtype == x.dtype == torch.float32:
        return F.linear(x, compiled.masked(weight, mask), None if bias is None else bias.to(x.dtype))
    return reference.masked_linear(x, weight, mask, bias, regrow)


def masked_linear_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    mask: Tensor,
    regrow: bool,
    needs: list[bool],
    tiles: list[Tensor] | None = None,
    *,
    native: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    if not (native and weight.dtype == grad.dtype == torch.float32):
        return reference.masked_linear_backward(grad, x, weight, mask, regrow, needs)
    kept = compiled.masked(weight, mask) if needs[0] else weight
    grad_x, grad_w, grad_bias = reference.products(grad, x, kept, needs)
    return grad_x, compiled.mask_(grad_w, mask) if needs[1] and not regrow else grad_w, grad_bias
