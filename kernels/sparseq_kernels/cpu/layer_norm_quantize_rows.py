"""`layer_norm_quantize_rows` on the CPU: native code of one pass over the rows."""

import torch
from torch import Tensor

from ..numerics import as_rows, qmax
from ..reference.layer_norm_quantize_rows import layer_norm_quantize_rows as formula
from ..registry import implementation
from . import native


@implementation("layer_norm_quantize_rows", "native")
def layer_norm_quantize_rows(
    x: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor, eps: float, bits: int
) -> tuple[Tensor, Tensor, Tensor]:
    given = (x, weight, bias) if residual is None else (x, weight, bias, residual)
    if bits > 8 or not x.numel() or any(tensor.dtype is not torch.float32 for tensor in given):
        return formula(x, residual, weight, bias, eps, bits)
    # Held by name while their addresses are in use.
    rows, added = as_rows(x).contiguous(), None if residual is None else residual.contiguous()
    weight, bias = weight.contiguous(), bias.contiguous()
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
    return q.reshape(x.shape), scale.reshape(x.shape[:-1]), y.reshape(x.shape)
