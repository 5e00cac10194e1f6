"""Operands as kernels read them: rows with their values side by side, scales in fp32, masks as bytes."""

import torch
from torch import Tensor

from ..numerics import as_rows


def contiguous_rows(x: Tensor) -> Tensor:
    """x [M, K] with each row's values side by side; a copy only if they are not."""
    return x if x.stride(1) == 1 else x.contiguous()


def row_layout(x: Tensor) -> tuple[Tensor, int, int, int]:
    """(x, M, K, stride of a row) of x [..., K], as rows with their values side by side; a copy only if they are not."""
    K = x.shape[-1]
    if not x.is_contiguous():
        x = contiguous_rows(as_rows(x))
        return x, len(x), K, x.stride(0)
    return x, x.shape[:-1].numel(), K, K


def vector(scale: Tensor) -> Tensor:
    """Scales as a contiguous fp32 vector; itself if it is one already, for each call into torch takes a microsecond."""
    if scale.dtype is torch.float32 and scale.dim() == 1 and scale.is_contiguous():
        return scale
    return scale.reshape(-1).float().contiguous()


def optional_vector(scale: Tensor | None) -> Tensor | None:
    """`vector` of scales that may be missing."""
    return None if scale is None else vector(scale)


def scale_stride(scale: Tensor, M: int) -> int:
    """The step from one row's scale to the next, of M rows: 1, or 0 where all rows share one scale."""
    return int(scale.numel() > 1 or M == 1)


def mask_bytes(mask: Tensor | None) -> Tensor | None:
    """A bool mask as the uint8 that kernels read; a copy only if it is strided."""
    return None if mask is None else mask.contiguous().view(torch.uint8)
