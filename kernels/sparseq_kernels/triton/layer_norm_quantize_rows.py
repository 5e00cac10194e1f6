"""Host code of `layer_norm_quantize_rows`."""

import torch
from torch import Tensor

from ..numerics import qmax, storage_dtype
from ..registry import implementation, shortcut
from .kernels.layer_norm_quantize_rows import layer_norm_quantize_rows_kernel
from .operands import row_layout
from .quantize_rows import row_tile
from .runtime.launch import empty, launch, on
from .runtime.launch_cache import LaunchCache


@implementation("layer_norm_quantize_rows", "triton")
def layer_norm_quantize_rows(
    x: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor, eps: float, bits: int
) -> tuple[Tensor, Tensor, Tensor]:
    y = empty(x.shape, x.dtype, x.device)
    y_q = empty(x.shape, storage_dtype(bits), x.device)
    scales = empty(x.shape[:-1], torch.float32, x.device)
    if y.numel() == 0:
        return y_q, scales.fill_(1), y
    rows, M, K, stride_xm = row_layout(x)
    added, _, _, stride_rm = (None, 0, 0, 0) if residual is None else row_layout(residual)
    programs, num_warps, tile = row_tile(M, K)
    with on(x):
        launch(
            layer_norm_quantize_rows_kernel,
            (programs, 1, 1),
            (rows, added, weight.contiguous(), bias.contiguous(), y, y_q, scales, eps, M, K, stride_xm, stride_rm),
            (qmax(bits), *tile),
            num_warps=num_warps,
            num_stages=1,
        )
    return y_q, scales, y


# Within an encoder: x and its residual are others in each call.
CACHE = LaunchCache(inputs=(0, 1), weight=2)
shortcut("layer_norm_quantize_rows", "triton")(CACHE)
