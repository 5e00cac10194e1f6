"""`qat_linear` and its backward: three products, each of operands that are quantized for it alone.

What the forward hands on is the scales alone: they take a pass over an operand to find, its integers only a rounding.
With the lists of the mask's tiles, empty ones are left out of all three products; but not of one whose result is the
gradient of an operand with a learned scale, nor of a forward with more than 8 bits.
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
from .device import current
from .int8_linear import launch_product, launch_tiles, rowwise, vector
from .launch import launch, on
from .plans import Plan, forced, gradient_plan, int8_plan
from .qat_gradients import gradient_kernel, gradient_sum_kernel
from .quantize_rows import fake_quantized, row_levels, row_scales
from .runtime import cdiv, run_length
from .tile_sparse import dot_precision, masked_values, precision, tile_gradient, tile_product

# Rows and columns that a program of `gradient_sum_kernel` adds up, 16 values a thread.
SUM_TILE, SUM_WARPS = (16, 128), 4
MM_HAS_DTYPE = hasattr(torch.ops.aten.mm, "dtype")
# Of a forward with more than 8 bits, whose operands are quantized as floats: both need registers for that.
WIDE_PLAN = Plan(64, 64, 32, warps=4, stages=3)


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
    tiles: list[Tensor] | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    rows, channels = rowwise(as_rows(x)), rowwise(weight)
    (M, K), N = rows.shape, weight.shape[0]
    integers = uses_integers(weight_bits, input_bits)
    if integers:
        check_depth(K)
    x_scale = None if input_scale is None else vector(input_scale)
    w_scale = None if weight_scale is None else vector(weight_scale)
    if 0 in (M, N, K):
        x_scale = row_scales(rows, input_bits) if x_scale is None else x_scale
        w_scale = row_scales(channels, weight_bits, mask) if w_scale is None else w_scale
        arguments = (x, weight, bias, mask, weight_scale, input_scale, weight_bits, input_bits, out_dtype, regrow)
        y = reference.qat_linear(*arguments)[0]
    elif tiles is not None and integers:
        y = torch.empty((*x.shape[:-1], N), dtype=result_dtype(x, out_dtype), device=x.device)
        x_levels, x_scale = row_levels(rows, None, x_scale, input_bits)
        w_levels, w_scale = row_levels(channels, tiles[0], w_scale, weight_bits, packed=True)
        bias = None if bias is None else bias.contiguous()
        tile_product(x_levels, w_levels, tiles, True, y, bias, (x_scale, w_scale))
    else:
        y = torch.empty((*x.shape[:-1], N), dtype=result_dtype(x, out_dtype), device=x.device)
        bias = None if bias is None else bias.contiguous()
        plan = forced() or (int8_plan(M, N, K, 1, "none", current()) if integers else WIDE_PLAN)
        with on(x):
            if plan.inside:
                x_scale, w_scale = _inside(
                    rows, x_scale, input_bits, channels, w_scale, weight_bits, mask, bias, y, plan
                )
            else:
                x_levels, x_scale = row_levels(rows, None, x_scale, input_bits)
                w_levels, w_scale = row_levels(channels, mask, w_scale, weight_bits)
                launch_product(x_levels, x_scale, "levels", (w_levels, w_scale, bias, y, None), "none", plan)
    no_x_levels, no_x_scale, no_w_levels, no_w_scale = nothing_saved(x, weight)
    return (
        y,
        no_x_levels,
        x_scale if input_scale is None else no_x_scale,
        no_w_levels,
        w_scale if weight_scale is None else no_w_scale,
    )


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
    plan: Plan,
) -> tuple[Tensor, Tensor]:
    """The forward with both operands quantized in the product. Returns their scales, found where they were None."""
    x_mode, w_mode = ("max" if scale is None else "given" for scale in (x_scale, w_scale))
    x_scale = row_scales(x, x_bits) if x_scale is None else x_scale
    w_scale = row_scales(weight, w_bits, mask) if w_scale is None else w_scale
    precision = "ieee" if uses_integers(w_bits, x_bits) else dot_precision(current())
    operands = (x, x_scale, x_mode, x_bits, weight, w_scale, w_mode, w_bits, _bytes(mask), bias, out, None)
    launch_tiles(*operands, "none", plan, precision)
    return x_scale, w_scale


def qat_linear_backward(
    grad: Tensor,
    x: Tensor | None,
    weight: Tensor,
    mask: Tensor | None,
    weight_scale: Tensor | None,
    input_scale: Tensor | None,
    residuals: list[Tensor],
    weight_bits: int,
    input_bits: int,
    input_dtype: torch.dtype,
    regrow: bool,
    needs: list[bool],
    tiles: list[Tensor] | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    if x is None or x.numel() == 0 or weight.numel() == 0:
        # Nothing to multiply, or the integers of another backend's forward.
        arguments = (grad, x, weight, mask, weight_scale, input_scale, residuals, weight_bits, input_bits)
        return reference.qat_linear_backward(*arguments, input_dtype, regrow, needs)
    g, rows, channels, kept = rowwise(as_rows(grad)), rowwise(as_rows(x)), rowwise(weight), _bytes(mask)
    M, K = rows.shape
    if input_scale is None:
        found = residuals[1] if residuals and residuals[1].numel() else row_scales(rows, input_bits)
    else:
        found = vector(input_scale).expand(M).contiguous()
    inputs = Operand(rows, None, found, input_bits, input_scale is not None)
    if weight_scale is None:
        found = residuals[3] if residuals and residuals[3].numel() else row_scales(channels, weight_bits, mask)
    else:
        found = vector(weight_scale)
    weights = Operand(channels, kept, found, weight_bits, weight_scale is not None)
    absent = grad.new_empty(0)
    grad_x = grad_w = grad_bias = grad_weight_scale = grad_input_scale = absent
    if needs[0] or needs[4]:
        if tiles is None or inputs.learned:
            grad_x, slopes = _gradient(g, False, weights, inputs, None, False, input_dtype)
        else:
            values = masked_values(channels, None, tiles, g.dtype, weights.scale, weight_bits, weights.learned)
            grad_x = torch.empty((M, K), dtype=input_dtype, device=x.device)
            tile_product(g, values, tiles, False, grad_x)
        grad_x = grad_x.reshape(*grad.shape[:-1], K)
        if input_scale is not None:
            factor = lsq_gradient_scale(K, 1, input_bits)
            grad_input_scale = (slopes.sum() * factor).to(input_scale.dtype).reshape(input_scale.shape)
    if needs[1] or needs[3]:
        if tiles is None or regrow or weights.learned:
            grad_w, slopes = _gradient(g, True, inputs, weights, kept, regrow, weight.dtype)
        else:
            values = fake_quantized(rows, None, inputs.scale, input_bits, inputs.learned, g.dtype)
            grad_w = tile_gradient(g, values, tiles, weight.dtype)
        if weight_scale is not None:
            grad_weight_scale = (slopes.sum(-1) * lsq_gradient_scale(K, 1, weight_bits)).to(weight_scale.dtype)
    if needs[2]:
        grad_bias = g.sum(0, dtype=torch.float32)
    return grad_x, grad_w, grad_bias, grad_weight_scale, grad_input_scale


class Operand(NamedTuple):
    """values [rows, K] floating, of which a uint8 `mask` [rows, K] keeps some; scale fp32 [rows]. learned: the scale is
    no maximum, so that values beyond its range are clipped. bits: 0 if the values are fake-quantized already."""

    values: Tensor
    mask: Tensor | None
    scale: Tensor
    bits: int
    learned: bool


def _gradient(
    g: Tensor, transposed: bool, b: Operand, of: Operand, out_mask: Tensor | None, regrow: bool, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """(g @ fq(b), or g^T @ fq(b) if `transposed`, in `dtype`; the sums of slopes that `_product` returns).

    In half precision fq(b) is made once, before: making it in each tile anew takes longer. Then torch multiplies,
    unless a tile has more to do.
    """
    (R, C) = (g.shape[1] if transposed else g.shape[0]), b.values.shape[1]
    plan = forced()
    if g.element_size() == 2 and plan is None:
        values = fake_quantized(b.values, b.mask, b.scale, b.bits, b.learned, g.dtype)
        out = None if of.learned else multiplied(g.t() if transposed else g, values, dtype)
        if out is not None:
            if out_mask is not None and not regrow:
                out.masked_fill_(out_mask == 0, 0)
            return out, g.new_empty(0)
        b = Operand(values, None, b.scale, 0, False)
    out = torch.empty((R, C), dtype=dtype, device=g.device)
    return out, _product(g, transposed, b, out, of, out_mask, regrow)


def multiplied(a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor | None:
    """a @ b of half precision, summed in fp32, in `dtype`; None where torch has no such product."""
    if not a.is_cuda or (dtype != a.dtype and not (dtype == torch.float32 and MM_HAS_DTYPE)):
        return None
    return a @ b if dtype == a.dtype else torch.mm(a, b, out_dtype=dtype)


def _product(
    g: Tensor, transposed: bool, b: Operand, out: Tensor, of: Operand, out_mask: Tensor | None, regrow: bool
) -> Tensor:
    """Writes g @ fq(b), or g^T @ fq(b) if `transposed`, to `out` [R, C]: the gradient of `of`, which where its scale is
    learned passes the clip range, and in any case `out_mask` unless `regrow`.

    Returns the sums of gradient * LSQ slope over each row of parts of its columns, fp32 [R, parts].
    """
    (R, C), D, device = out.shape, b.values.shape[0], current()
    ready = b.bits == 0
    b_bytes = b.values.element_size() + (b.mask is not None)
    plan = forced() or gradient_plan(R, C, D, g.element_size(), b_bytes, device, of.learned)
    columns = cdiv(C, SUM_TILE[1]) if plan.split > 1 else cdiv(C, plan.block_n) * plan.gradient_parts
    slopes = torch.empty((R, columns if of.learned else 0), dtype=torch.float32, device=out.device)
    clipped = of if of.learned else None
    epilogue = (
        out,
        out_mask,
        None if clipped is None else clipped.values,
        None if clipped is None else clipped.scale,
        None if clipped is None else slopes,
    )
    sums = out if plan.split == 1 else torch.empty((plan.split, R, C), dtype=torch.float32, device=out.device)
    finish = (qmax(of.bits) if of.learned else 0, regrow)
    with on(out):
        launch(
            gradient_kernel,
            (cdiv(R, plan.block_m) * cdiv(C, plan.block_n), plan.split, 1),
            (
                g,
                b.values,
                b.mask,
                b.scale,
                b.scale if ready else reciprocal(b.scale),
                sums,
                *(epilogue[1:] if plan.split == 1 else (None,) * 4),
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
                precision(g, device),
                D % plan.block_k == 0,
                run_length(R) if transposed else 1,
                run_length(C),
                plan.split,
                plan.block_m,
                plan.block_n,
                plan.block_k,
                plan.group_m,
                plan.gradient_parts,
            ),
            plan.warps,
            plan.stages,
        )
        if plan.split > 1:
            grid = (cdiv(R, SUM_TILE[0]), cdiv(C, SUM_TILE[1]), 1)
            launch(
                gradient_sum_kernel,
                grid,
                (sums, *epilogue, R, C, R * C, of.values.stride(0)),
                (*finish, plan.split, *SUM_TILE),
                SUM_WARPS,
                1,
            )
    return slopes


def _bytes(mask: Tensor | None) -> Tensor | None:
    """A bool mask as the uint8 that kernels read; not a copy unless it is strided."""
    return None if mask is None else mask.contiguous().view(torch.uint8)
