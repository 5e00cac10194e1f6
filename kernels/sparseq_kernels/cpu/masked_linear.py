"""`masked_linear` on the CPU: the mask is applied by native code of one pass."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..reference import masked_linear as reference
from ..registry import implementation
from . import native as compiled


@implementation("masked_linear", "native")
def masked_linear(
    x: Tensor,
    weight: Tensor,
    mask: Tensor,
    bias: Tensor | None,
    regrow: bool,
    block_index: list[Tensor] | None = None,
) -> Tensor:
    if weight.dtype == x.dtype == torch.float32:
        return F.linear(x, compiled.masked(weight, mask), None if bias is None else bias.to(x.dtype))
    return reference.masked_linear(x, weight, mask, bias, regrow)


@implementation("masked_linear_backward", "native")
def masked_linear_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    mask: Tensor,
    regrow: bool,
    needs: list[bool],
    block_index: list[Tensor] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    if not (weight.dtype == grad.dtype == torch.float32):
        return reference.masked_linear_backward(grad, x, weight, mask, regrow, needs)
    kept = compiled.masked(weight, mask) if needs[0] else weight
    grad_x, grad_w, grad_bias = reference.products(grad, x, kept, needs)
    return grad_x, compiled.mask_(grad_w, mask) if needs[1] and not regrow else grad_w, grad_bias
