"""The straight-through gradients of the int8 products (`int8_linear` and those with a weight as it is stored): of x as
if it had not been rounded, which `qat_linear` has too, and of the bias. The int8 weight is a constant."""

import torch
from torch import Tensor

from ..formats import format_named
from ..numerics import as_rows, compute_dtype
from .fake_quant import clip_and_slope
from .int8_linear import dequantized_input
from .qat_linear import float_linear


def int8_linear_backward(
    grad: Tensor,
    x: Tensor | None,
    stored: list[Tensor],
    format: str,
    weight_scale: Tensor,
    bias: Tensor | None,
    input_scale: Tensor | None,
    activation: str,
    in_features: int,
    input_dtype: torch.dtype,
    needs: list[bool],
) -> tuple[Tensor, Tensor]:
    g = as_rows(grad)
    weight = dequantized_weight(stored, format, weight_scale, in_features)
    if x is not None and activation != "none":
        y = float_linear(dequantized_input(as_rows(x), input_scale), weight, bias, weight.dtype)
        g = through_activation(g, y, activation)
    grad_x = grad_bias = grad.new_empty(0)
    if needs[0]:
        grad_x = (g @ weight.to(g.dtype)).to(input_dtype).reshape(*grad.shape[:-1], in_features)
        if x is not None and input_scale is not None:
            grad_x = grad_x * inside(x, input_scale)
    if needs[1]:
        grad_bias = g.sum(0, dtype=compute_dtype(g))
    return grad_x, grad_bias


def int8_linear_tangent(
    x: Tensor,
    stored: list[Tensor],
    format: str,
    weight_scale: Tensor,
    bias: Tensor | None,
    input_scale: Tensor | None,
    activation: str,
    x_tangent: Tensor | None,
    bias_tangent: Tensor | None,
) -> Tensor:
    """The forward derivative, of which `int8_linear_backward` is the transpose: [..., N], in compute_dtype(x)."""
    rows, weight = as_rows(x), dequantized_weight(stored, format, weight_scale, x.shape[-1])
    tangent = weight.new_zeros(rows.shape[0], weight.shape[0])
    if x_tangent is not None:
        moved = x_tangent if input_scale is None else x_tangent * inside(x, input_scale)
        tangent = tangent + as_rows(moved).to(weight.dtype) @ weight.t()
    if bias_tangent is not None:
        tangent = tangent + bias_tangent.to(weight.dtype)
    if activation != "none":
        y = float_linear(dequantized_input(rows, input_scale), weight, bias, weight.dtype)
        tangent = through_activation(tangent, y, activation)
    return tangent.reshape(*x.shape[:-1], weight.shape[0])


def dequantized_weight(stored: list[Tensor], format: str, scale: Tensor, columns: int) -> Tensor:
    """[N, columns], in compute_dtype."""
    values = format_named(format).decode(tuple(stored), columns)
    return values.to(compute_dtype(scale)) * scale.to(compute_dtype(scale)).unsqueeze(-1)


def inside(x: Tensor, input_scale: Tensor) -> Tensor:
    """Where a static scale does not clip x."""
    return clip_and_slope(x, input_scale.reshape(()), 8)[0]


def through_activation(g: Tensor, y: Tensor, activation: str) -> Tensor:
    """g times the activation's derivative at y."""
    if activation == "relu":
        return g * (y > 0)
    approximate = "tanh" if activation == "gelu_tanh" else "none"
    return torch.ops.aten.gelu_backward(g.to(y.dtype), y, approximate=approximate).to(g.dtype)
