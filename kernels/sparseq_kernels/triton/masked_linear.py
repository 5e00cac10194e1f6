"""`masked_linear` and its backward: with the lists of the mask's tiles, empty ones cost nothing in all three products;
without them the weight is masked once, in one pass that rounds it too, and torch multiplies."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..numerics import as_rows
from ..reference import masked_linear as reference
from .int8_linear import rowwise
from .qat_linear import multiplied
from .tile_sparse import masked_values, tile_gradient, tile_product


def masked_linear(
    x: Tensor, weight: Tensor, mask: Tensor, bias: Tensor | None, regrow: bool, tiles: list[Tensor] | None = None
) -> Tensor:
    if x.numel() == 0 or weight.numel() == 0:
        return reference.masked_linear(x, weight, mask, bias, regrow)
    values = masked_values(rowwise(weight), mask, tiles, x.dtype)
    if tiles is None:
        return F.linear(x, values, None if bias is None else bias.to(x.dtype))
    y = torch.empty((*x.shape[:-1], weight.shape[0]), dtype=x.dtype, device=x.device)
    tile_product(rowwise(as_rows(x)), values, tiles, True, y, None if bias is None else bias.contiguous())
    return y


def masked_linear_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    mask: Tensor,
    regrow: bool,
    needs: list[bool],
    tiles: list[Tensor] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    if grad.numel() == 0 or x.numel() == 0:
        return reference.masked_linear_backward(grad, x, weight, mask, regrow, needs)
    g, rows = rowwise(as_rows(grad)), rowwise(as_rows(x))
    grad_x = grad_w = grad_bias = grad.new_empty(0)
    if needs[0]:
        values = masked_values(rowwise(weight), mask, tiles, g.dtype)
        if tiles is None:
            grad_x = (g @ values).reshape(x.shape)
        else:
            grad_x = torch.empty(x.shape, dtype=g.dtype, device=x.device)
            tile_product(g, values, tiles, False, grad_x)
    if needs[1]:
        if tiles is None or regrow:
            product = multiplied(g.t(), rows, weight.dtype)
            grad_w = (g.t() @ rows).to(weight.dtype) if product is None else product
            if not regrow:
                grad_w.masked_fill_(~mask, 0)
        else:
            grad_w = tile_gradient(g, rows, tiles, weight.dtype)
    if needs[2]:
        grad_bias = g.sum(0)
    return grad_x, grad_w, grad_bias
