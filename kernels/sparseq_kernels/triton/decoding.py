"""Host code of int8 products with a weight that is decoded tile by tile: `bitmask_int8_linear` and 2:4 alike.

For few rows of x the product's kernel decodes the weight. Beyond DECODED_INSIDE_ROWS every tile of rows would decode it
anew, so it is decoded once, into memory that lives as long as the product.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ..numerics import CHUNK
from .int8_linear import launch_product, launch_sum, quantized_input
from .kernels.decoding import decode_kernel, decoding_linear_kernel
from .operands import scale_stride, vector
from .runtime.device import current
from .runtime.gemm_config import GemmConfig, forced_config
from .runtime.grid import cdiv
from .runtime.heuristics import int8_config
from .runtime.launch import empty, launch, on

DECODED_INSIDE_ROWS = 32
DECODE_TILE = (16, CHUNK)


class Stored(NamedTuple):
    """A weight [N, K] as stored: its values, a bitmask's bits or the indices of 2:4, and a bitmask's offsets. format:
    "bitmask" or "2:4"."""

    values: Tensor
    places: Tensor
    offsets: Tensor | None
    format: str


def decoding_linear(
    x: Tensor,
    stored: Stored,
    weight_scale: Tensor,
    bias: Tensor | None,
    input_scale: Tensor | None,
    activation: str,
    out_dtype: torch.dtype | None,
) -> Tensor:
    """The op's result. x [..., K] floating or int8, weight_scale [N]; the rest as for `int8_linear`."""
    N = weight_scale.shape[0]
    out, rows, scale = quantized_input(x, N, input_scale, out_dtype)
    M, K = rows.shape
    if 0 in (M, N):
        return out
    bias = None if bias is None else bias.contiguous()
    with on(x):
        if M > DECODED_INSIDE_ROWS:
            operands = (_decoded(stored, N, K), vector(weight_scale), bias, out, None)
            config = int8_config(M, N, K, activation, current())
            launch_product(rows, scale, operands, activation, config)
        else:
            _launch_decoding(rows, scale, stored, vector(weight_scale), bias, out, activation)
    return out


def _decoded(stored: Stored, N: int, K: int) -> Tensor:
    """The weight int8 [N, K]."""
    weight = empty((N, K), torch.int8, stored.values.device)
    grid = (cdiv(N, DECODE_TILE[0]), max(1, cdiv(K, DECODE_TILE[1])), 1)
    args = (*stored[:3], weight, N, K, cdiv(K, CHUNK))
    launch(decode_kernel, grid, args, (stored.format, *DECODE_TILE), num_warps=4, num_stages=1)
    return weight


def _decoding_config(M: int, N: int, K: int) -> GemmConfig:
    """Four programs for each processor, by sharing the depth where columns are few.

    A bitmask's values can be loaded only when its bits are there and counted; meanwhile other programs compute.
    """
    block_n = 16
    split_k = max(1, min(cdiv(K, CHUNK), 4 * current().processors // cdiv(N, block_n)))
    return GemmConfig(16 if M <= 16 else 32, block_n, CHUNK, num_warps=4, num_stages=2, split_k=split_k)


def _launch_decoding(
    x: Tensor, scale: Tensor, stored: Stored, weight_scale: Tensor, bias: Tensor | None, out: Tensor, activation: str
) -> None:
    (M, K), N = x.shape, weight_scale.shape[0]
    config = forced_config() or _decoding_config(M, N, K)
    sums = out if config.split_k == 1 else empty((config.split_k, M, N), torch.int32, x.device)
    launch(
        decoding_linear_kernel,
        (cdiv(N, config.block_n), config.split_k, cdiv(M, config.block_m)),
        (x, scale, *stored[:3], weight_scale, bias, sums, M, N, K, cdiv(K, CHUNK), x.stride(0)),
        (
            scale_stride(scale, M),
            activation,
            stored.format,
            config.split_k,
            config.block_m,
            config.block_n,
            config.block_k,
        ),
        config.num_warps,
        config.num_stages,
    )
    if config.split_k > 1:
        launch_sum(sums, scale, (stored.values, weight_scale, bias, out, None), activation, config)
