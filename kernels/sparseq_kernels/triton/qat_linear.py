"""Host code of `qat_linear` and its backward: three products, each of operands that are quantized for it alone.

Only the scales are saved for the backward: finding them takes a pass over an operand, its integers only a rounding.
With the mask's block index, blocks without a kept weight are left out of all three products, except where the result is
the gradient of an operand with a learned scale, and of a forward with more than 8 bits.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ..numerics import (
    as_rows,
    check_depth,
    lsq_gradient_scale,
    nothing_saved,
    qmax,
    reciprocal,
    result_dtype,
    uses_integers,
)
from ..reference import qat_linear as reference
from ..registry import implementation
from .block_products import block_gradient, block_product, masked_values
from .column_sum import column_sum
from .int8_linear import launch_product, launch_tiles
from .kernels.qat_linear import gradient_kernel, gradient_sum_kernel
from .operands import contiguous_rows, mask_bytes, optional_vector, vector
from .precision import dot_precision, half_product, input_precision
from .quantize_rows import fake_quantized, quantized_rows, row_scales
from .runtime.device import current
from .runtime.gemm_config import GemmConfig, forced_config
from .runtime.grid import cdiv, run_length
from .runtime.heuristics import gradient_config, int8_config
from .runtime.launch import launch, on

# Rows and columns that a program of `gradient_sum_kernel` adds up, 16 values a thread.
SUM_TILE, SUM_WARPS = (16, 128), 4
# Of a forward with more than 8 bits, whose operands are quantized as floats: both need registers for that.
WIDE_CONFIG = GemmConfig(64, 64, 32, num_warps=4, num_stages=3, quantize_inside=True)


@implementation("qat_linear", "triton", saves="scales")
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
    rows, channels = contiguous_rows(as_rows(x)), contiguous_rows(weight)
    (M, K), N = rows.shape, weight.shape[0]
    integers = uses_integers(weight_bits, input_bits)
    if integers:
        check_depth(K)
    x_scale = optional_vector(input_scale)
    w_scale = optional_vector(weight_scale)
    if 0 in (M, N, K):
        x_scale = row_scales(rows, input_bits) if x_scale is None else x_scale
        w_scale = row_scales(channels, weight_bits, mask) if w_scale is None else w_scale
        arguments = (x, weight, bias, mask, weight_scale, input_scale, weight_bits, input_bits, out_dtype, regrow)
        y = reference.qat_linear(*arguments)[0]
    elif block_index is not None and integers:
        y = torch.empty((*x.shape[:-1], N), dtype=result_dtype(x, out_dtype), device=x.device)
        x_q, x_scale = _quantized_x(rows, x_scale, input_bits, quantized_x, row_scale)
        w_q, w_scale = quantized_rows(channels, block_index[0], w_scale, weight_bits, packed=True)
        bias = None if bias is None else bias.contiguous()
        block_product(x_q, w_q, block_index, True, y, bias, (x_scale, w_scale))
    else:
        y = torch.empty((*x.shape[:-1], N), dtype=result_dtype(x, out_dtype), device=x.device)
        bias = None if bias is None else bias.contiguous()
        config = forced_config() or (int8_config(M, N, K, "none", current()) if integers else WIDE_CONFIG)
        with on(x):
            if config.quantize_inside and quantized_x is None:
                x_scale, w_scale = _inside(
                    rows, x_scale, input_bits, channels, w_scale, weight_bits, mask, bias, y, config
                )
            else:
                x_q, x_scale = _quantized_x(rows, x_scale, input_bits, quantized_x, row_scale)
                w_q, w_scale = quantized_rows(channels, mask, w_scale, weight_bits)
                launch_product(x_q, x_scale, (w_q, w_scale, bias, y, None), "none", config)
    no_x_q, no_x_scale, no_w_q, no_w_scale = nothing_saved(x, weight)
    return (
        y,
        no_x_q,
        x_scale if input_scale is None and quantized_x is None else no_x_scale,
        no_w_q,
        w_scale if weight_scale is None else no_w_scale,
    )


def _quantized_x(
    rows: Tensor, scale: Tensor | None, bits: int, given: Tensor | None, given_scale: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The integers and the scales of the rows [M, K] of x, as they were given or found here."""
    if given is None or given_scale is None:
        return quantized_rows(rows, None, scale, bits)
    return contiguous_rows(as_rows(given)), given_scale.reshape(-1).contiguous()


def _inside(
    x: Tensor,
    x_scale: Tensor | None,
    x_bits: int,
    weight: Tensor,
    w_scale: Tensor | None,
    w_bits: int,
    mask: Tensor | None,
    bias: Tensor | None,
    out: Tensor,
    config: GemmConfig,
) -> tuple[Tensor, Tensor]:
    """The forward with both operands quantized in the product. Returns their scales, found where they were None."""
    x_mode, w_mode = ("max" if scale is None else "given" for scale in (x_scale, w_scale))
    x_scale = row_scales(x, x_bits) if x_scale is None else x_scale
    w_scale = row_scales(weight, w_bits, mask) if w_scale is None else w_scale
    precision = "ieee" if uses_integers(w_bits, x_bits) else dot_precision(current())
    x_side, w_side = (x, x_scale, x_mode, x_bits), (weight, w_scale, w_mode, w_bits)
    launch_tiles(x_side, w_side, mask_bytes(mask), bias, out, None, "none", config, precision)
    return x_scale, w_scale


@implementation("qat_linear_backward", "triton")
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
    if x is None or x.numel() == 0 or weight.numel() == 0:
        # Nothing to multiply, or another backend's forward saved its integers.
        arguments = (grad, x, weight, mask, weight_scale, input_scale, saved, weight_bits, input_bits)
        return reference.qat_linear_backward(*arguments, input_dtype, regrow, needs)
    g, rows, channels, kept = (
        contiguous_rows(as_rows(grad)),
        contiguous_rows(as_rows(x)),
        contiguous_rows(weight),
        mask_bytes(mask),
    )
    M, K = rows.shape
    if input_scale is None:
        found = saved[1] if saved and saved[1].numel() else row_scales(rows, input_bits)
    else:
        found = vector(input_scale).expand(M).contiguous()
    inputs = Operand(rows, None, found, input_bits, input_scale is not None)
    if weight_scale is None:
        found = saved[3] if saved and saved[3].numel() else row_scales(channels, weight_bits, mask)
    else:
        found = vector(weight_scale)
    weights = Operand(channels, kept, found, weight_bits, weight_scale is not None)
    absent = grad.new_empty(0)
    grad_x = grad_w = grad_bias = grad_weight_scale = grad_input_scale = absent
    if needs[0] or needs[4]:
        if block_index is None or inputs.learned:
            grad_x, slopes = _gradient(g, False, weights, inputs, None, False, input_dtype)
        else:
            values = masked_values(channels, None, block_index, g.dtype, weights.scale, weight_bits, weights.learned)
            grad_x = torch.empty((M, K), dtype=input_dtype, device=x.device)
            block_product(g, values, block_index, False, grad_x)
        grad_x = grad_x.reshape(*grad.shape[:-1], K)
        if input_scale is not None:
            factor = lsq_gradient_scale(K, 1, input_bits)
            grad_input_scale = (slopes.sum() * factor).to(input_scale.dtype).reshape(input_scale.shape)
    if needs[1] or needs[3]:
        if block_index is None or regrow or weights.learned:
            grad_w, slopes = _gradient(g, True, inputs, weights, kept, regrow, weight.dtype)
        else:
            values = fake_quantized(rows, None, inputs.scale, input_bits, inputs.learned, g.dtype)
            grad_w = block_gradient(g, values, block_index, weight.dtype)
        if weight_scale is not None:
            grad_weight_scale = (slopes.sum(-1) * lsq_gradient_scale(K, 1, weight_bits)).to(weight_scale.dtype)
    if needs[2]:
        grad_bias = column_sum(g, torch.float32)
    return grad_x, grad_w, grad_bias, grad_weight_scale, grad_input_scale


class Operand(NamedTuple):
    """An operand of a gradient's product: floating values [rows, K], and how they are quantized.

    mask: uint8 [rows, K], which values are kept; None keeps all. scale: fp32 [rows]. bits: 0 if the values are
    fake-quantized already. learned: whether the scale is no maximum, so that values beyond its range are clipped.
    """

    values: Tensor
    mask: Tensor | None
    scale: Tensor
    bits: int
    learned: bool


def _gradient(
    g: Tensor, transposed: bool, b: Operand, of: Operand, out_mask: Tensor | None, regrow: bool, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """(g @ fq(b), or g^T @ fq(b) if `transposed`, in `dtype`; the sums of slopes that `_product` returns).

    In half precision fq(b) is computed once, before the product, which is faster than in each tile anew. Then torch
    multiplies, unless the epilogue has more to do.
    """
    (R, C) = (g.shape[1] if transposed else g.shape[0]), b.values.shape[1]
    config = forced_config()
    if g.element_size() == 2 and config is None:
        values = fake_quantized(b.values, b.mask, b.scale, b.bits, b.learned, g.dtype)
        out = None if of.learned else half_product(g.t() if transposed else g, values, dtype)
        if out is not None:
            if out_mask is not None and not regrow:
                out.masked_fill_(out_mask == 0, 0)
            return out, g.new_empty(0)
        b = Operand(values, None, b.scale, 0, False)
    out = torch.empty((R, C), dtype=dtype, device=g.device)
    return out, _product(g, transposed, b, out, of, out_mask, regrow)


def _product(
    g: Tensor, transposed: bool, b: Operand, out: Tensor, of: Operand, out_mask: Tensor | None, regrow: bool
) -> Tensor:
    """Writes g @ fq(b), or g^T @ fq(b) if `transposed`, to `out` [R, C]: the gradient of `of`.

    Where the scale of `of` is learned, the gradient is zero outside the clip range. Unless `regrow` it is zero where
    `out_mask` is. Returns the sums of gradient * LSQ slope over parts of each row's columns, fp32 [R, parts].
    """
    (R, C), D, device = out.shape, b.values.shape[0], current()
    ready = b.bits == 0
    b_bytes = b.values.element_size() + (b.mask is not None)
    config = forced_config() or gradient_config(R, C, D, g.element_size(), b_bytes, device, of.learned)
    columns = cdiv(C, SUM_TILE[1]) if config.split_k > 1 else cdiv(C, config.block_n) * config.gradient_parts
    slopes = torch.empty((R, columns if of.learned else 0), dtype=torch.float32, device=out.device)
    clipped = of if of.learned else None
    epilogue = (
        out,
        out_mask,
        None if clipped is None else clipped.values,
        None if clipped is None else clipped.scale,
        None if clipped is None else slopes,
    )
    sums = out if config.split_k == 1 else torch.empty((config.split_k, R, C), dtype=torch.float32, device=out.device)
    finish = (qmax(of.bits) if of.learned else 0, regrow)
    with on(out):
        launch(
            gradient_kernel,
            (cdiv(R, config.block_m) * cdiv(C, config.block_n), config.split_k, 1),
            (
                g,
                b.values,
                b.mask,
                b.scale,
                b.scale if ready else reciprocal(b.scale),
                sums,
                *(epilogue[1:] if config.split_k == 1 else (None,) * 4),
                R,
                C,
                D,
                g.stride(0),
                b.values.stride(0),
                of.values.stride(0),
            ),
            (
                transposed,
                0 if ready else qmax(b.bits),
                b.learned,
                *finish,
                input_precision(g, device),
                D % config.block_k == 0,
                run_length(R) if transposed else 1,
                run_length(C),
                config.split_k,
                config.block_m,
                config.block_n,
                config.block_k,
                config.group_m,
                config.gradient_parts,
            ),
            config.num_warps,
            config.num_stages,
        )
        if config.split_k > 1:
            grid = (cdiv(R, SUM_TILE[0]), cdiv(C, SUM_TILE[1]), 1)
            launch(
                gradient_sum_kernel,
                grid,
                (sums, *epilogue, R, C, R * C, of.values.stride(0)),
                (*finish, config.split_k, *SUM_TILE),
                SUM_WARPS,
                1,
            )
    return slopes
