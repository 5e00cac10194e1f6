"""`layer_norm_quantize_rows` on the CPU: native code of one pass over the rows, and its shortcut for encoders."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..numerics import as_rows, qmax
from ..reference.layer_norm_quantize_rows import layer_norm_quantize_rows as formula
from ..registry import implementation, shortcut
from ..torch_internals import PLAIN_CLASSES, is_zerotensor
from . import native

FP32, STRIDED = torch.float32, torch.strided
Results = tuple[Tensor, Tensor, Tensor]


@implementation("layer_norm_quantize_rows", "native")
def layer_norm_quantize_rows(
    x: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor, eps: float, bits: int
) -> Results:
    given = (x, weight, bias) if residual is None else (x, weight, bias, residual)
    if bits > 8 or not x.numel() or any(tensor.dtype is not FP32 for tensor in given):
        return formula(x, residual, weight, bias, eps, bits)
    # Held by name while their addresses are in use.
    rows, added = as_rows(x).contiguous(), None if residual is None else residual.contiguous()
    weight, bias = weight.contiguous(), bias.contiguous()
    q, scale, y = _run(rows, added, weight, bias, eps, bits)
    return q.reshape(x.shape), scale.reshape(x.shape[:-1]), y.reshape(x.shape)


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
        if x.dim() != 2 or not x.numel() or x.dtype is not FP32 or x.layout is not STRIDED or not x.is_contiguous():
            return None
        for tensor, shape in ((residual, x.shape), (weight, x.shape[1:]), (bias, x.shape[1:])):
            if tensor is None:
                continue
            if tensor.__class__ not in PLAIN_CLASSES or not tensor.is_cpu or tensor.dtype is not FP32:
                return None
            if (
                tensor.shape != shape
                or tensor.layout is not STRIDED
                or not tensor.is_contiguous()
                or tensor.is_neg()
                or is_zerotensor(tensor)
            ):
                return None
        if weight is None or bias is None or type(eps) is not float or type(bits) is not int:
            return None
        if not (0 <= eps < float("inf") and 2 <= bits <= 8):
            return None
    except (AttributeError, RuntimeError, TypeError):
        # No tensor, a sparse one, which has no memory layout, or no number.
        return None
    return _run(x, residual, weight, bias, eps, bits)


def _run(rows: Tensor, added: Tensor | None, weight: Tensor, bias: Tensor, eps: float, bits: int) -> Results:
    """Contiguous fp32 [M, K], [M, K] or None, [K] and [K], of up to 8 bits."""
    y, q = torch.empty_like(rows), torch.empty_like(rows, dtype=torch.int8)
    scale = rows.new_empty(len(rows))
    native.library().sparseq_layer_norm_quantize_rows(
        rows.data_ptr(),
        None if added is None else added.data_ptr(),
        weight.data_ptr(),
        bias.data_ptr(),
        eps,
        *rows.shape,
        qmax(bits),
        q.data_ptr(),
        scale.data_ptr(),
        y.data_ptr(),
        native.threads(),
    )
    return q, scale, y
