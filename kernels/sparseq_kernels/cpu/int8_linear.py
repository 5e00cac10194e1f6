"""`int8_linear` on the CPU: the int8 product that is fastest here, and its shortcut for packed layers."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..numerics import (
    ACTIVATIONS,
    MAX_INT8_DEPTH,
    as_rows,
    check_depth,
    flat_scale,
    given_scale,
    result_dtype,
    to_output,
)
from ..registry import implementation, shortcut
from ..torch_internals import PLAIN_CLASSES, int_mm, mkldnn_enabled
from . import native as compiled
from .int8_matmul import MKLDNN_IS_OFF, int8_matmul, warn_if_slow, way, why_not_this_processor
from .quantize_rows import quantize, quantize_rows


def quantize_input(x: Tensor, input_scale: Tensor | None, bits: int, *, native: bool) -> tuple[Tensor, Tensor]:
    if x.dtype == torch.int8:
        return x, flat_scale(given_scale(input_scale))
    if input_scale is None:
        return quantize_rows(x, bits, native=native)
    return quantize(x, input_scale, bits), flat_scale(input_scale)


def scaled_product(
    x: Tensor,
    weight: Tensor,
    input_scale: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    *,
    native: bool,
) -> Tensor:
    """(x weight^T) * input_scale[:, None] * weight_scale + bias, in the scales' dtype: int8 [M, K], int8 [N, K], [M or
    1], [N], [N] or None -> [M, N]."""
    if not (native and input_scale.dtype == weight_scale.dtype == torch.float32):
        y = int8_matmul(x, weight, native=native).to(input_scale.dtype)
        y.mul_(input_scale.unsqueeze(-1)).mul_(weight_scale)
        return y if bias is None else y.add_(bias)
    added = None if bias is None else bias.to(torch.float32)
    if way(native) == "native":
        check_depth(x.shape[1])
        return compiled.int8_linear(x, weight, input_scale, weight_scale, added)
    return compiled.scale_sums(int8_matmul(x, weight, native=native), input_scale, weight_scale, added)


@implementation("int8_linear", "cpu", native=False)
@implementation("int8_linear", "native", native=True)
def int8_linear(
    x: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    input_scale: Tensor | None,
    activation: str,
    out_dtype: torch.dtype | None,
    output_scale: Tensor | None,
    *,
    native: bool,
) -> Tensor:
    fp32 = x.dtype is weight_scale.dtype is torch.float32 and (bias is None or bias.dtype is torch.float32)
    if native and fp32 and input_scale is None and way(native) == "native":
        check_depth(weight.shape[1])
        y = compiled.quantized_linear(x, weight, weight_scale, bias, 8)
    else:
        q, scale = quantize_input(as_rows(x), input_scale, 8, native=native)
        y = scaled_product(q, weight, scale, weight_scale, bias, native=native)
        y = y.reshape(*x.shape[:-1], weight.shape[0])
    return to_output(ACTIVATIONS[activation](y), result_dtype(x, out_dtype, output_scale), output_scale)


@shortcut("int8_linear", "native")
def packed_call(
    run: Callable[..., Tensor],
    x: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    input_scale: Tensor | None,
    activation: str,
    out_dtype: torch.dtype | None,
    output_scale: Tensor | None,
) -> Tensor | None:
    """`int8_linear` of an fp32 input that is quantized by row, and contiguous tensors; None for any other call.

    In a small layer, validation and the choice of a product take longer than the product itself. Here both are one look
    at each tensor.
    """
    fp32 = torch.float32
    if input_scale is not None or output_scale is not None or activation != "none" or x.dtype is not fp32:
        return None
    for tensor in (weight, weight_scale) if bias is None else (weight, weight_scale, bias):
        if not (
            tensor.__class__ in PLAIN_CLASSES
            and tensor.is_cpu
            and tensor.layout is torch.strided
            and tensor.dtype is (torch.int8 if tensor is weight else fp32)
            and tensor.is_contiguous()
            and not tensor.is_neg()
        ):
            return None
    if not (x.is_cpu and x.layout is torch.strided and x.is_contiguous() and weight.dim() == 2 and x.dim()):
        return None
    N, K = weight.shape
    shape = x.shape
    fits = shape[-1] == K and weight_scale.shape == (N,) and (bias is None or bias.shape == (N,))
    if not fits or (out_dtype is not None and out_dtype is not fp32) or not (1 < K <= MAX_INT8_DEPTH and N):
        return None
    M = x.numel() // K
    y = x.new_empty((*shape[:-1], N))
    native, bias_at = compiled.library(), None if bias is None else bias.data_ptr()
    reason = why_not_this_processor() if mkldnn_enabled() else MKLDNN_IS_OFF
    if reason is None:
        if not M:
            return y
        q, scale = x.new_empty((M, K), dtype=torch.int8), x.new_empty(M)
        native.sparseq_quantize_rows(x.data_ptr(), None, M, K, 127, q.data_ptr(), scale.data_ptr())
        sums = int_mm(q, weight.t())
        native.sparseq_scale_sums(
            sums.data_ptr(), M, N, scale.data_ptr(), int(M > 1), weight_scale.data_ptr(), bias_at, y.data_ptr()
        )
        return y
    warn_if_slow("native", reason)
    failed = native.sparseq_quantized_linear(
        x.data_ptr(), weight.data_ptr(), M, N, K, 127, weight_scale.data_ptr(), bias_at, y.data_ptr()
    )
    return None if failed else y
