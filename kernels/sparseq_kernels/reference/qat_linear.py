"""The reference of `qat_linear`, its backward and its forward-mode derivative."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..numerics import (
    as_rows,
    clip_and_slope,
    compute_dtype,
    lsq_gradient_scale,
    masked,
    nothing_saved,
    quantize,
    result_dtype,
    row_max,
    scale_from_max,
    uses_integers,
)
from .fake_quant import fake_quant
from .int8_linear import epilogue, float_linear, int8_matmul, quantize_input


def channel_scale(weight: Tensor, scale: Tensor | None, bits: int) -> Tensor:
    """[N]: the learned scale if there is one, else max|w| / qmax of each output channel."""
    return scale_from_max(row_max(weight), bits) if scale is None else scale


def fake_quant_operands(
    x: Tensor,
    weight: Tensor,
    mask: Tensor | None,
    weight_scale: Tensor | None,
    input_scale: Tensor | None,
    weight_bits: int,
    input_bits: int,
) -> tuple[Tensor, Tensor]:
    """x [M, K] and the masked weight [N, K], both quantized and dequantized, in compute_dtype."""
    x, weight = x.to(compute_dtype(x)), masked(weight, mask).to(compute_dtype(weight))
    rows = scale_from_max(row_max(x), input_bits).unsqueeze(-1) if input_scale is None else input_scale
    channels = channel_scale(weight, weight_scale, weight_bits).unsqueeze(-1)
    return fake_quant(x, rows, input_bits), fake_quant(weight, channels, weight_bits)


def qat_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    weight_scale: Tensor | None,
    input_scale: Tensor | None,
    weight_bits: int,
    input_bits: int,
    out_dtype: torch.dtype | None,
    regrow: bool,
    block_index: list[Tensor] | None = None,
    quantized_x: Tensor | None = None,
    row_scale: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    rows = as_rows(x)
    out = result_dtype(x, out_dtype)
    if uses_integers(weight_bits, input_bits):
        kept = masked(weight, mask)
        channels = channel_scale(kept, weight_scale, weight_bits)
        if quantized_x is None or row_scale is None:
            q, scale = quantize_input(rows, input_scale, input_bits)
        else:
            q, scale = as_rows(quantized_x), row_scale.reshape(-1)
        acc = int8_matmul(q, quantize(kept, channels.unsqueeze(-1), weight_bits))
        y = epilogue(acc, scale, channels, bias, "none").to(out)
    else:
        xq, wq = fake_quant_operands(rows, weight, mask, weight_scale, input_scale, weight_bits, input_bits)
        y = float_linear(xq, wq, bias, out)
    return y.reshape(*x.shape[:-1], weight.shape[0]), *nothing_saved(x, weight)


def qat_linear_backward(
    grad: Tensor,
    x: Tensor | None,
    weight: Tensor,
    mask: Tensor | None,
    weight_scale: Tensor | None,
    input_scale: Tensor | None,
    saved: list[Tensor],
    weight_bits: int,
    input_bits: int,
    input_dtype: torch.dtype,
    regrow: bool,
    needs: list[bool],
    block_index: list[Tensor] | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    g = as_rows(grad)
    rows = None
    if x is None:  # The forward of another backend saved quantized operands.
        x_q, x_scale, w_q, w_scale = saved
        xq, wq = x_q * x_scale.unsqueeze(-1), w_q * w_scale.unsqueeze(-1)
    else:
        rows = as_rows(x)
        xq, wq = fake_quant_operands(rows, weight, mask, weight_scale, input_scale, weight_bits, input_bits)
    # The two products run in the gradient's own precision, as autograd of a plain linear layer would.
    g_dtype = torch.promote_types(g.dtype, torch.float32) if g.dtype == torch.float64 else g.dtype
    absent = grad.new_empty(0)
    grad_x = grad_w = grad_bias = grad_weight_scale = grad_input_scale = absent
    if needs[0] or needs[4]:
        product = (g @ wq.to(g_dtype)).to(xq.dtype)
        if input_scale is not None and rows is not None:
            inside, slope = clip_and_slope(rows, input_scale, input_bits)
            factor = lsq_gradient_scale(weight.shape[-1], 1, input_bits)
            grad_input_scale = ((product * slope).sum() * factor).to(input_scale.dtype).reshape(input_scale.shape)
            product = product * inside
        grad_x = product.to(input_dtype).reshape(*grad.shape[:-1], weight.shape[1])
    if needs[1] or needs[3]:
        product = (g.t() @ xq.to(g_dtype)).to(compute_dtype(weight))
        if weight_scale is not None:
            inside, slope = clip_and_slope(masked(weight, mask), weight_scale.unsqueeze(-1), weight_bits)
            factor = lsq_gradient_scale(weight.shape[-1], 1, weight_bits)
            grad_weight_scale = ((product * slope).sum(-1) * factor).to(weight_scale.dtype)
            product = product * inside
        grad_w = (product if regrow else masked(product, mask)).to(weight.dtype)
    if needs[2]:
        grad_bias = g.sum(0, dtype=compute_dtype(g))
    return grad_x, grad_w, grad_bias, grad_weight_scale, grad_input_scale


def qat_linear_tangent(
    x: Tensor,
    weight: Tensor,
    mask: Tensor | None,
    weight_scale: Tensor | None,
    input_scale: Tensor | None,
    weight_bits: int,
    input_bits: int,
    regrow: bool,
    tangents: Sequence[Tensor | None],
) -> Tensor:
    """The forward-mode derivative [..., N], in compute_dtype. `qat_linear_backward` is its transpose.

    tangents: of x, weight, bias, weight_scale, input_scale.
    """
    rows = as_rows(x)
    xq, wq = fake_quant_operands(rows, weight, mask, weight_scale, input_scale, weight_bits, input_bits)
    of_x, of_weight, of_bias, of_weight_scale, of_input_scale = tangents
    moved_x = None if of_x is None else as_rows(of_x).to(xq.dtype)
    if input_scale is not None:
        moved_x = _through_scale(moved_x, of_input_scale, rows, input_scale.reshape(()), input_bits)
    moved_w = None if of_weight is None else (of_weight if regrow else masked(of_weight, mask)).to(wq.dtype)
    if weight_scale is not None:
        column = None if of_weight_scale is None else of_weight_scale.unsqueeze(-1)
        moved_w = _through_scale(moved_w, column, masked(weight, mask), weight_scale.unsqueeze(-1), weight_bits)
    dtype = torch.promote_types(xq.dtype, wq.dtype)
    y = xq.new_zeros(len(rows), weight.shape[0], dtype=dtype)
    if moved_x is not None:
        y = y + moved_x.to(dtype) @ wq.to(dtype).t()
    if moved_w is not None:
        y = y + xq.to(dtype) @ moved_w.to(dtype).t()
    if of_bias is not None:
        y = y + of_bias.to(dtype)
    return y.reshape(*x.shape[:-1], weight.shape[0])


def _through_scale(
    tangent: Tensor | None, of_scale: Tensor | None, values: Tensor, scale: Tensor, bits: int
) -> Tensor | None:
    """The tangent of fake-quantized `values` [..., K], by the values' own and their learned scale's."""
    inside, slope = clip_and_slope(values, scale, bits)
    moved = None if tangent is None else tangent * inside
    if of_scale is None:
        return moved
    by_scale = slope * of_scale.to(slope.dtype).reshape(scale.shape) * lsq_gradient_scale(values.shape[-1], 1, bits)
    return by_scale if moved is None else moved + by_scale
