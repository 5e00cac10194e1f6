"""Host code of `masked_linear` and its backward.

With the mask's block index, blocks without a kept weight cost nothing in all three products. Without it one pass masks
the weight and rounds it to x's dtype, and torch multiplies.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..numerics import as_rows
from ..reference import masked_linear as reference
from ..registry import implementation
from .block_products import block_gradient, block_product, masked_values
from .column_sum import column_sum
from .operands import contiguous_rows
from .precision import half_product


@implementation("masked_linear", "triton")
def masked_linear(
    x: Tensor, weight: Tensor, mask: Tensor, bias: Tensor | None, regrow: bool, block_index: list[Tensor] | None = None
) -> Tensor:
    if x.numel() == 0 or weight.numel() == 0:
        return reference.masked_linear(x, weight, mask, bias, regrow)
    values = masked_values(contiguous_rows(weight), mask, block_index, x.dtype)
    if block_index is None:
        return F.linear(x, values, None if bias is None else bias.to(x.dtype))
    y = torch.empty((*x.shape[:-1], weight.shape[0]), dtype=x.dtype, device=x.device)
    block_product(
        contiguous_rows(as_rows(x)), values, block_index, True, y, None if bias is None else bias.contiguous()
    )
    return y


@implementation("masked_linear_backward", "triton")
def masked_linear_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    mask: Tensor,
    regrow: bool,
    needs: list[bool],
    block_index: list[Tensor] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    if grad.numel() == 0 or x.numel() == 0:
        return reference.masked_linear_backward(grad, x, weight, mask, regrow, needs)
    g, rows = contiguous_rows(as_rows(grad)), contiguous_rows(as_rows(x))
    grad_x = grad_w = grad_bias = grad.new_empty(0)
    if needs[0]:
        values = masked_values(contiguous_rows(weight), mask, block_index, g.dtype)
        if block_index is None:
            grad_x = (g @ values).reshape(x.shape)
        else:
            grad_x = torch.empty(x.shape, dtype=g.dtype, device=x.device)
            block_product(g, values, block_index, False, grad_x)
    if needs[1]:
        if block_index is None or regrow:
            product = half_product(g.t(), rows, weight.dtype)
            grad_w = (g.t() @ rows).to(weight.dtype) if product is None else product
            if not regrow:
                grad_w.masked_fill_(~mask, 0)
        else:
            grad_w = block_gradient(g, rows, block_index, weight.dtype)
    if needs[2]:
        grad_bias = column_sum(g, g.dtype)
    return grad_x, grad_w, grad_bias
