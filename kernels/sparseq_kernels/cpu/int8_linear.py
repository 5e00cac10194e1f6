"""`int8_linear` on the CPU: the int8 product that is fastest here, and its shortcut for packed layers."""

import math
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
    qmax,
    result_dtype,
    to_output,
)
from ..registry import implementation, shortcut
from ..torch_internals import PLAIN_CLASSES, is_zerotensor
from . import native as compiled
from .int8_matmul import WAYS, int8_matmul, way
from .linear import packed_product, packs_for
from .quantize_rows import quantize, quantize_rows

FP32 = torch.float32
QMAX = qmax(8)


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
    if packs_for(x.shape[0], weight):
        return packed_product(x, input_scale, weight, weight_scale, added)
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
    rows = math.prod(x.shape[:-1])
    if native and fp32 and input_scale is None and way(native) == "native" and not packs_for(rows, weight):
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
    """`int8_linear` of an fp32 input that is quantized by row, or of int8 rows with their scales, and contiguous
    tensors, to fp32; None for any other call, and for one of so many rows that the weight is packed for it.

    In a small layer, validation of every argument takes longer than the product. This checks what native code relies
    on, and nothing else.
    """
    if output_scale is not None or not (out_dtype is None or out_dtype is FP32) or activation not in ACTIVATIONS:
        return None
    try:
        N, K = weight.shape
        for tensor in (weight, weight_scale) if bias is None else (weight, weight_scale, bias):
            if tensor.__class__ not in PLAIN_CLASSES or not tensor.is_cpu:
                return None
            if tensor is not weight and (tensor.dtype is not FP32 or tensor.shape != (N,)):
                return None
            if not tensor.is_contiguous() or tensor.is_neg() or is_zerotensor(tensor):
                return None
        shape = x.shape
        if weight.dtype is not torch.int8 or not x.is_cpu or not x.is_contiguous():
            return None
        if not shape or shape[-1] != K or not N or not 0 < K <= MAX_INT8_DEPTH:
            return None
        M = x.numel() // K
        if packs_for(M, weight):
            return None
        if input_scale is None:
            if x.dtype is not FP32:
                return None
        elif x.dtype is not torch.int8 or not _is_scale_of_rows(input_scale, shape):
            return None
        x_at, weight_at, scale_at = x.data_ptr(), weight.data_ptr(), weight_scale.data_ptr()
        bias_at = None if bias is None else bias.data_ptr()
        input_at = None if input_scale is None else input_scale.data_ptr()
    except (AttributeError, RuntimeError, TypeError, ValueError):
        # No tensor, one without a memory layout, such as a sparse or an mkldnn one, or a weight that is no matrix.
        return None
    y = weight_scale.new_empty((shape[0], N) if len(shape) == 2 else (*shape[:-1], N))
    native, threads = compiled.library(), compiled.threads()
    if (product := way(True)) == "native":
        if input_scale is None:
            failed = native.sparseq_quantized_linear(
                x_at, weight_at, M, N, K, QMAX, scale_at, bias_at, y.data_ptr(), threads
            )
            if failed:
                return None
        else:
            native.sparseq_int8_linear(x_at, weight_at, M, N, K, input_at, 1, scale_at, bias_at, y.data_ptr(), threads)
    else:
        q, scale = x.reshape(M, K), input_scale
        if scale is None:
            q, scale = x.new_empty((M, K), dtype=torch.int8), x.new_empty(M)
            native.sparseq_quantize_rows(x_at, None, M, K, QMAX, q.data_ptr(), scale.data_ptr(), threads)
        sums = WAYS[product](q, weight)
        native.sparseq_scale_sums(
            sums.data_ptr(), M, N, scale.data_ptr(), int(M > 1), scale_at, bias_at, y.data_ptr(), threads
        )
    return y if activation == "none" else ACTIVATIONS[activation](y)


def _is_scale_of_rows(scale: Tensor, shape: torch.Size) -> bool:
    """Whether these are scales by row, as `quantize_rows` gives them, for an input of this shape."""
    if scale.__class__ not in PLAIN_CLASSES or not scale.is_cpu or scale.dtype is not FP32:
        return False
    return scale.shape == shape[:-1] and scale.is_contiguous() and not scale.is_neg() and not is_zerotensor(scale)
