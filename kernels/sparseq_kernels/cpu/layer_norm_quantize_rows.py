"""`layer_norm_quantize_rows` on the CPU: native code of one pass over each row."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..numerics import qmax
from ..reference.layer_norm_quantize_rows import layer_norm_quantize_rows as formula
from ..registry import implementation, shortcut
from ..torch_internals import PLAIN_CLASSES, is_zerotensor
from . import native as compiled

FP32 = torch.float32
Results = tuple[Tensor, Tensor, Tensor]


@implementation("layer_norm_quantize_rows", "native")
def layer_norm_quantize_rows(
    x: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor, eps: float, bits: int
) -> Results:
    floats = [tensor for tensor in (x, residual, weight, bias) if tensor is not None]
    if bits > 8 or any(tensor.dtype != FP32 for tensor in floats):
        return formula(x, residual, weight, bias, eps, bits)
    added = None if residual is None else residual.contiguous()
    return _run(x.contiguous(), added, weight.contiguous(), bias.contiguous(), eps, bits)


@shortcut("layer_norm_quantize_rows", "native")
def encoder_call(
    run: Callable[..., Results],
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    bits: int,
) -> Results | None:
    """The op on fp32 matrices without gaps; None for any other call. It checks what native code relies on."""
    try:
        if x.dim() != 2 or x.dtype is not FP32 or not x.is_contiguous():
            return None
        for tensor, shape in ((residual, x.shape), (weight, x.shape[1:]), (bias, x.shape[1:])):
            if tensor is None:
                continue
            if tensor.__class__ not in PLAIN_CLASSES or not tensor.is_cpu or tensor.dtype is not FP32:
                return None
            if tensor.shape != shape or not tensor.is_contiguous() or tensor.is_neg() or is_zerotensor(tensor):
                return None
        if weight is None or bias is None or not (0 <= eps < float("inf") and bits in (2, 3, 4, 5, 6, 7, 8)):
            return None
    except (AttributeError, RuntimeError, TypeError):
        # No tensor, a sparse one, which has no memory layout, or no number.
        return None
    return _run(x, residual, weight, bias, eps, bits)


def _run(x: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor, eps: float, bits: int) -> Results:
    """Contiguous fp32 tensors, up to 8 bits."""
    q, scale, y = torch.empty_like(x, dtype=torch.int8), x.new_empty(x.shape[:-1]), torch.empty_like(x)
    compiled.library().sparseq_layer_norm_quantize_rows(
        x.data_ptr(),
        None if residual is None else residual.data_ptr(),
        weight.data_ptr(),
        bias.data_ptr(),
        eps,
        scale.numel(),
        x.shape[-1],
        qmax(bits),
        q.data_ptr(),
        scale.data_ptr(),
        y.data_ptr(),
    )
    return q, scale, y
