"""`qat_linear` on the CPU: int8 products forward, and a backward from the quantized operands that the forward saved."""

import torch
from torch import Tensor

from ..instruction_sets import instruction_set
from ..numerics import as_rows, compute_dtype, masked, nothing_saved, result_dtype, uses_integers
from ..reference import qat_linear as reference
from ..registry import implementation
from . import native as compiled
from .int8_linear import quantize_input, scaled_product
from .quantize_rows import quantize, quantize_rows


@implementation("qat_linear", "cpu", saves="quantized", native=False)
@implementation("qat_linear", "native", saves="quantized", native=True)
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
    *,
    native: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    if not uses_integers(weight_bits, input_bits):
        return reference.qat_linear(
            x, weight, bias, mask, weight_scale, input_scale, weight_bits, input_bits, out_dtype, regrow
        )
    out = result_dtype(x, out_dtype)
    if quantized_x is None or row_scale is None:
        q, scale = quantize_input(as_rows(x), input_scale, input_bits, native=native)
    else:
        q, scale = as_rows(quantized_x), row_scale.reshape(-1)
    if weight_scale is not None:
        w, channels = quantize(masked(weight, mask), weight_scale.unsqueeze(-1), weight_bits), weight_scale
    elif native and weight.dtype == torch.float32:
        w, channels = compiled.quantize_rows(weight, weight_bits, mask)
    else:
        w, channels = quantize_rows(masked(weight, mask), weight_bits, native=native)
    y = scaled_product(q, w, scale, channels, bias, native=native).to(out)
    y = y.reshape(*x.shape[:-1], weight.shape[0])
    if weight_scale is not None or input_scale is not None:
        return y, *nothing_saved(x, weight)  # Clip masks and LSQ's gradient need the unrounded operands.
    if quantized_x is not None:  # The caller has it.
        q, scale = nothing_saved(x, weight)[:2]
    return y, q, scale, w, channels


@implementation("qat_linear_backward", "cpu", native=False)
@implementation("qat_linear_backward", "native", native=True)
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
    *,
    native: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    if x is not None:
        return reference.qat_linear_backward(
            grad,
            x,
            weight,
            mask,
            weight_scale,
            input_scale,
            saved,
            weight_bits,
            input_bits,
            input_dtype,
            regrow,
            needs,
        )
    x_q, x_scale, w_q, w_scale = saved
    # With scales from the maximum nothing is clipped, so straight-through is the identity: two plain products.
    g = as_rows(grad)
    absent = grad.new_empty(0)
    grad_x = grad_w = grad_bias = absent
    # Of fp32 gradients native code's products take the integers as they are; in portable C torch's are faster.
    by_integers = native and g.dtype == x_scale.dtype == w_scale.dtype == torch.float32
    by_integers = by_integers and instruction_set() != "portable"
    if needs[0]:
        if by_integers:
            product = compiled.product_with_weight(g, w_q, w_scale)
        else:
            product = g @ dequantize(w_q, w_scale, g.dtype, native)
        grad_x = product.to(input_dtype).reshape(*grad.shape[:-1], weight.shape[1])
    if needs[1]:
        if by_integers:
            product, grad_bias = compiled.product_with_inputs(g, x_q, x_scale)
        else:
            product = g.t() @ dequantize(x_q, x_scale, g.dtype, native)
        grad_w = product.to(weight.dtype).contiguous()
        if mask is not None and not regrow:
            grad_w = compiled.mask_(grad_w, mask) if native and grad_w.dtype == torch.float32 else masked(grad_w, mask)
    if not needs[2]:
        grad_bias = absent
    elif not (needs[1] and by_integers):
        grad_bias = g.sum(0, dtype=compute_dtype(g))
    return grad_x, grad_w, grad_bias, absent, absent


def dequantize(values: Tensor, scale: Tensor, dtype: torch.dtype, native: bool) -> Tensor:
    """values * scale, by row: int8 [M, K], fp32 [M] -> [M, K]."""
    if native and scale.dtype == torch.float32:
        return compiled.dequantize_rows(values, scale).to(dtype)
    return values.to(scale.dtype).mul_(scale.unsqueeze(-1)).to(dtype)
