"""`qat_linear` and its backward: three products, each of operands that are quantized where they are multiplied.

What the forward hands on is the scales alone: they take a pass over an operand to find, its integers only a rounding.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ..numerics import as_rows, qmax, reciprocal
from ..reference import qat_linear as reference
from ..reference.fake_quant import lsq_gradient_scale
from ..reference.int8_linear import check_depth, result_dtype
from ..reference.qat_linear import no_residuals, uses_integers
from .device import INTERPRETER, Device, current
from .int8_linear import launch_tiles, rowwise, vector
from .launch import launch, on
from .plans import Plan, forced, gradient_plan, int8_plan
from .qat_gradients import gradient_kernel, gradient_sum_kernel
from .quantize_rows import row_scales
from .runtime import cdiv, run_length

# Rows and columns that a program of `gradient_sum_kernel` adds up, 16 values a thread.
SUM_TILE, SUM_WARPS = (16, 128), 4
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
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    rows, channels = rowwise(as_rows(x)), rowwise(weight)
    (M, K), N = rows.shape, weight.shape[0]
    integers = uses_integers(weight_bits, input_bits)
    if integers:
        check_depth(K)
    x_scale = row_scales(rows, input_bits) if input_scale is None else vector(input_scale)
    w_scale = row_scales(channels, weight_bits, mask) if weight_scale is None else vector(weight_scale)
    no_x_levels, no_x_scale, no_w_levels, no_w_scale = no_residuals(x, weight)
    kept = (
        no_x_levels,
        x_scale if input_scale is None else no_x_scale,
        no_w_levels,
        w_scale if weight_scale is None else no_w_scale,
    )
    if 0 in (M, N, K):
        arguments = (x, weight, bias, mask, weight_scale, input_scale, weight_bits, input_bits, out_dtype, regrow)
        return reference.qat_linear(*arguments)[0], *kept
    out = torch.empty((M, N), dtype=result_dtype(x, out_dtype), device=x.device)
    device = current()
    with on(x):
        launch_tiles(
            rows,
            x_scale,
            "max" if input_scale is None else "given",
            input_bits,
            channels,
            w_scale,
            "max" if weight_scale is None else "given",
            weight_bits,
            _bytes(mask),
            None if bias is None else bias.contiguous(),
            out,
            None,
            "none",
            forced() or _forward_plan(integers, rows, channels, mask, device),
            "ieee" if integers else dot_precision(device),
        )
    return out.reshape(*x.shape[:-1], N), *kept


def _forward_plan(integers: bool, x: Tensor, weight: Tensor, mask: Tensor | None, device: Device) -> Plan:
    if not integers:
        return WIDE_PLAN
    w_bytes = weight.element_size() + (mask is not None)
    return int8_plan(x.shape[0], *weight.shape, x.element_size(), w_bytes, "none", device)


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
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    if x is None or x.numel() == 0 or weight.numel() == 0:
        # Nothing to multiply, or the integers of another backend's forward.
        arguments = (grad, x, weight, mask, weight_scale, input_scale, residuals, weight_bits, input_bits)
        return reference.qat_linear_backward(*arguments, input_dtype, regrow, needs)
    g, rows, channels, kept = rowwise(as_rows(grad)), rowwise(as_rows(x)), rowwise(weight), _bytes(mask)
    (M, K), N = rows.shape, weight.shape[0]
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
        grad_x = torch.empty((M, K), dtype=input_dtype, device=grad.device)
        slopes = _product(g, False, weights, grad_x, inputs, None, False)
        grad_x = grad_x.reshape(*grad.shape[:-1], K)
        if input_scale is not None:
            factor = lsq_gradient_scale(K, 1, input_bits)
            grad_input_scale = (slopes.sum() * factor).to(input_scale.dtype).reshape(input_scale.shape)
    if needs[1] or needs[3]:
        grad_w = torch.empty((N, K), dtype=weight.dtype, device=grad.device)
        slopes = _product(g, True, inputs, grad_w, weights, kept, regrow)
        if weight_scale is not None:
            grad_weight_scale = (slopes.sum(-1) * lsq_gradient_scale(K, 1, weight_bits)).to(weight_scale.dtype)
    if needs[2]:
        grad_bias = g.sum(0, dtype=torch.float32)
    return grad_x, grad_w, grad_bias, grad_weight_scale, grad_input_scale


class Operand(NamedTuple):
    """values [rows, K] floating, of which a uint8 `mask` [rows, K] keeps some; scale fp32 [rows]. learned: the scale is
    no maximum, so that values beyond its range are clipped."""

    values: Tensor
    mask: Tensor | None
    scale: Tensor
    bits: int
    learned: bool


def _product(
    g: Tensor, transposed: bool, b: Operand, out: Tensor, of: Operand, out_mask: Tensor | None, regrow: bool
) -> Tensor:
    """Writes g @ fq(b), or g^T @ fq(b) if `transposed`, to `out` [R, C]: the gradient of `of`, which where its scale is
    learned passes the clip range, and in any case `out_mask` unless `regrow`.

    Returns the sums of gradient * LSQ slope over each row of parts of its columns, fp32 [R, parts].
    """
    (R, C), D, device = out.shape, b.values.shape[0], current()
    b_bytes = b.values.element_size() + (b.mask is not None)
    plan = forced() or gradient_plan(R, C, D, g.element_size(), b_bytes, device, of.learned)
    parts = 2 if plan.block_n >= 128 else 1
    columns = cdiv(C, SUM_TILE[1]) if plan.split > 1 else cdiv(C, plan.block_n) * parts
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
                reciprocal(b.scale),
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
                qmax(b.bits),
                b.learned,
                *finish,
                dot_precision(device) if g.dtype == torch.float32 else "ieee",
                D % plan.block_k == 0,
                run_length(R) if transposed else 1,
                run_length(C),
                plan.split,
                plan.block_m,
                plan.block_n,
                plan.block_k,
                plan.group_m,
                parts,
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


def dot_precision(device: Device) -> str:
    """How matrix units multiply fp32: as `torch.set_float32_matmul_precision` says, "highest" by three TF32 products
    where the hardware has those."""
    if device.arch == INTERPRETER or device.arch == "sm_75":
        return "ieee"
    exact = torch.get_float32_matmul_precision() == "highest"
    if device.amd:
        return "tf32" if device.arch == "gfx942" and not exact else "ieee"
    return "tf32x3" if exact else "tf32"


def _bytes(mask: Tensor | None) -> Tensor | None:
    """A bool mask as the uint8 that kernels read; not a copy unless it is strided."""
    return None if mask is None else mask.contiguous().view(torch.uint8)
