"""`gelu_quantize_rows` on the CPU: native code of one pass over the rows."""

import torch
from torch import Tensor

from ..numerics import as_rows, qmax
from ..reference.gelu_quantize_rows import gelu_quantize_rows as formula
from ..registry import implementation
from . import native


@implementation("gelu_quantize_rows", "native")
def gelu_quantize_rows(x: Tensor, approximate: str, bits: int) -> tuple[Tensor, Tensor]:
    if bits > 8 or not x.numel() or x.dtype is not torch.float32 or approximate != "none":
        return formula(x, approximate, bits)
    rows = as_rows(x).contiguous()
    y, q, scale = torch.empty_like(rows), torch.empty_like(rows, dtype=torch.int8), rows.new_empty(len(rows))
    native.library().sparseq_gelu_quantize_rows(
        rows.data_ptr(), *rows.shape, qmax(bits), q.data_ptr(), scale.data_ptr(), y.data_ptr(), native.threads()
    )
    return q.reshape(x.shape), scale.reshape(x.shape[:-1])
