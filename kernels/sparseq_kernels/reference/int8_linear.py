"""The reference of `int8_linear`, its backward and its forward-mode derivative.

The gradients are straight-through: that of x is as if it had not been rounded. The int8 weight is a constant.
"""

import torch
from torch import Tensor

from ..numerics import (
    ACTIVATIONS,
    as_rows,
    check_depth,
    clip_and_slope,
    compute_dtype,
    flat_scale,
    given_scale,
    quantize,
    result_dtype,
    to_output,
)
from .quantize_rows import quantize_rows


def int8_matmul(x: Tensor, weight: Tensor) -> Tensor:
    """int8 [M, K] times int8 [N, K] transposed, summed exactly: int32 [M, N]. fp64 holds every partial sum exactly."""
    check_depth(x.shape[1])
    return (x.double() @ weight.double().t()).to(torch.int32)


def quantize_input(x: Tensor, input_scale: Tensor | None, bits: int) -> tuple[Tensor, Tensor]:
    """(integers, scale [M or 1]) of x [M, K]: dynamic per row without `input_scale`, static per tensor with one."""
    if x.dtype == torch.int8:
        return x, flat_scale(given_scale(input_scale))
    if input_scale is None:
        return quantize_rows(x, bits)
    return quantize(x, input_scale, bits), flat_scale(input_scale)


def dequantized_input(x: Tensor, input_scale: Tensor | None) -> Tensor:
    """x [M, K] quantized, and dequantized in compute_dtype."""
    values, scale = quantize_input(x, input_scale, 8)
    return values.to(scale.dtype) * scale.unsqueeze(-1)


def epilogue(acc: Tensor, input_scale: Tensor, weight_scale: Tensor, bias: Tensor | None, activation: str) -> Tensor:
    """act(acc * input_scale[:, None] * weight_scale[None, :] + bias), in fp32 (fp64 if the scales are)."""
    y = acc.to(input_scale.dtype) * input_scale.unsqueeze(-1) * weight_scale
    if bias is not None:
        y = y + bias.to(y.dtype)
    return ACTIVATIONS[activation](y)


def int8_linear(
    x: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    input_scale: Tensor | None,
    activation: str,
    out_dtype: torch.dtype | None,
    output_scale: Tensor | None = None,
) -> Tensor:
    q, scale = quantize_input(as_rows(x), input_scale, 8)
    y = epilogue(int8_matmul(q, weight), scale, weight_scale, bias, activation)
    y = to_output(y, result_dtype(x, out_dtype, output_scale), output_scale)
    return y.reshape(*x.shape[:-1], weight.shape[0])


def float_linear(x: Tensor, weight: Tensor, bias: Tensor | None, out_dtype: torch.dtype) -> Tensor:
    """x weight^T + bias in the wider of both dtypes, then in `out_dtype`."""
    common = torch.promote_types(x.dtype, weight.dtype)
    y = x.to(common) @ weight.to(common).t()
    return (y if bias is None else y + bias.to(y.dtype)).to(out_dtype)


def int8_linear_backward(
    grad: Tensor,
    x: Tensor | None,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    input_scale: Tensor | None,
    activation: str,
    in_features: int,
    input_dtype: torch.dtype,
    needs: list[bool],
) -> tuple[Tensor, Tensor]:
    g = as_rows(grad)
    w = dequantized_weight(weight, weight_scale)
    if x is not None and activation != "none":
        y = float_linear(dequantized_input(as_rows(x), input_scale), w, bias, w.dtype)
        g = through_activation(g, y, activation)
    grad_x = grad_bias = grad.new_empty(0)
    if needs[0]:
        grad_x = (g @ w.to(g.dtype)).to(input_dtype).reshape(*grad.shape[:-1], in_features)
        if x is not None and input_scale is not None:
            grad_x = grad_x * inside(x, input_scale)
    if needs[1]:
        grad_bias = g.sum(0, dtype=compute_dtype(g))
    return grad_x, grad_bias


def int8_linear_tangent(
    x: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    input_scale: Tensor | None,
    activation: str,
    x_tangent: Tensor | None,
    bias_tangent: Tensor | None,
) -> Tensor:
    """The forward-mode derivative [..., N], in compute_dtype(x). `int8_linear_backward` is its transpose."""
    rows, w = as_rows(x), dequantized_weight(weight, weight_scale)
    tangent = w.new_zeros(rows.shape[0], w.shape[0])
    if x_tangent is not None:
        moved = x_tangent if input_scale is None else x_tangent * inside(x, input_scale)
        tangent = tangent + as_rows(moved).to(w.dtype) @ w.t()
    if bias_tangent is not None:
        tangent = tangent + bias_tangent.to(w.dtype)
    if activation != "none":
        y = float_linear(dequantized_input(rows, input_scale), w, bias, w.dtype)
        tangent = through_activation(tangent, y, activation)
    return tangent.reshape(*x.shape[:-1], w.shape[0])


def dequantized_weight(weight: Tensor, scale: Tensor) -> Tensor:
    """int8 [N, K] times its scale [N], in compute_dtype."""
    return weight.to(compute_dtype(scale)) * scale.to(compute_dtype(scale)).unsqueeze(-1)


def inside(x: Tensor, input_scale: Tensor) -> Tensor:
    """Where a static scale does not clip x."""
    return clip_and_slope(x, input_scale.reshape(()), 8)[0]


def through_activation(g: Tensor, y: Tensor, activation: str) -> Tensor:
    """g times the activation's derivative at y."""
    if activation == "relu":
        return g * (y > 0)
    approximate = "tanh" if activation == "gelu_tanh" else "none"
    return torch.ops.aten.gelu_backward(g.to(y.dtype), y, approximate=approximate).to(g.dtype)
