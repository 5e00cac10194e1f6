"""`quantize_rows` on the CPU: native code of one pass, or torch's operators in few passes."""

import torch
from torch import Tensor

from .. import numerics
from ..numerics import as_rows, compute_dtype, qmax, reciprocal, row_max, scale_from_max, storage_dtype
from ..registry import implementation
from . import native as compiled


@implementation("quantize_rows", "cpu", native=False)
@implementation("quantize_rows", "native", native=True)
def quantize_rows(x: Tensor, bits: int, *, native: bool) -> tuple[Tensor, Tensor]:
    if native and x.dtype == torch.float32 and bits <= 8 and x.dim():
        q, scale = compiled.quantize_rows(as_rows(x), bits)
        return q.reshape(x.shape), scale.reshape(x.shape[:-1])
    scale = scale_from_max(row_max(x), bits)
    return quantize(x, scale.unsqueeze(-1), bits, clamp=False), scale


def quantize(x: Tensor, scale: Tensor, bits: int, *, clamp: bool = True) -> Tensor:
    """`numerics.quantize` in fewer passes. clamp: False for scales from the maximum, which clip nothing."""
    if not torch.isfinite(scale).all():
        return numerics.quantize(x, scale, bits)
    values = torch.mul(x.to(compute_dtype(x)), reciprocal(scale)).round_()
    if clamp:
        values.clamp_(-qmax(bits), qmax(bits)).nan_to_num_(nan=0.0)
    return values.to(storage_dtype(bits))
