"""Host code of `int8_embedding`."""

import functools

import torch
import triton
from torch import Tensor

from ..registry import implementation
from .kernels.int8_embedding import int8_embedding_kernel
from .runtime.launch import launch, on

# Values of a program of four warps: 16 a thread, one load of 16 bytes.
VALUES = 2048
COLUMNS = 256


@implementation("int8_embedding", "triton")
def int8_embedding(indices: Tensor, weight: Tensor, scale: Tensor, out_dtype: torch.dtype | None) -> Tensor:
    """Rows of weight [V, D] in floating point. An index outside [0, V) gives a row of NaN, as a kernel cannot raise."""
    V, D = weight.shape
    out = torch.empty((*indices.shape, D), dtype=out_dtype or scale.dtype, device=weight.device)
    if out.numel() == 0:
        return out
    flat = indices.contiguous()
    M = flat.numel()
    programs, tile = _tiles(M, D)
    with on(weight):
        launch(
            int8_embedding_kernel,
            (programs, 1, 1),
            (flat, weight, scale, out, M, V, D, weight.stride(0), weight.stride(1), scale.stride(0)),
            tile,
            num_warps=4,
            num_stages=1,
        )
    return out


@functools.lru_cache(maxsize=4096)
def _tiles(M: int, D: int) -> tuple[int, tuple[int, int]]:
    """(programs, (rows, columns) of a program's tile) for an output [M, D]."""
    block_d = min(triton.next_power_of_2(D), COLUMNS)
    block_m = VALUES // block_d
    return triton.cdiv(M, block_m) * triton.cdiv(D, block_d), (block_m, block_d)
