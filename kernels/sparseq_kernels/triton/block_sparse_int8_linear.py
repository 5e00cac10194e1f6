"""Host code of `block_sparse_int8_linear`."""

import torch
from torch import Tensor

from ..registry import implementation
from .int8_linear import quantized_input
from .kernels.block_sparse_int8_linear import block_sparse_kernel
from .operands import scale_stride, vector
from .runtime.device import INTERPRETER, current
from .runtime.gemm_config import GemmConfig, forced_config
from .runtime.grid import cdiv
from .runtime.launch import launch, on


@implementation("block_sparse_int8_linear", "triton")
def block_sparse_int8_linear(
    x: Tensor,
    values: Tensor,
    block_columns: Tensor,
    offsets: Tensor,
    order: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    input_scale: Tensor | None,
    activation: str,
    out_dtype: torch.dtype | None,
) -> Tensor:
    N, (_, r, c) = weight_scale.shape[0], values.shape
    out, rows, scale = quantized_input(x, N, input_scale, out_dtype)
    M, K = rows.shape
    if 0 in (M, N):
        return out
    config = forced_config() or _block_config(M, r, c)
    stored = [tensor.contiguous() for tensor in (values, block_columns, offsets, order)]
    bias = None if bias is None else bias.contiguous()
    parts = config.output_parts(out.element_size())
    with on(x):
        launch(
            block_sparse_kernel,
            (cdiv(M, config.block_m) * (N // r), 1, 1),
            (rows, scale, *stored, vector(weight_scale), bias, out, M, N, K, rows.stride(0)),
            (scale_stride(scale, M), activation, config.block_m, r, c, config.block_k, parts),
            config.num_warps,
            config.num_stages,
        )
    return out


def _block_config(M: int, r: int, c: int) -> GemmConfig:
    """For blocks of r x c weights. Tiles are as tall as x has rows for, since each tile reads its blocks anew."""
    device = current()
    block_k = max(c, 64)
    block_m = 16 if M <= 16 else 32 if M <= 32 else 64 if M <= 128 or device.arch == INTERPRETER else 128
    # Deep enough for an H100's loads, each of which waits for the number of its block's column.
    room = device.shared_bytes // (block_k * (block_m + r)) - 1
    num_warps = 8 if block_m * r == 128 * 128 else 4
    return GemmConfig(block_m, r, block_k, num_warps, num_stages=2 if device.amd else min(5, room))
