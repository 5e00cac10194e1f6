import functools

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import launch, on

# Values of a program of four warps: 16 a thread, one load of 16 bytes.
VALUES = 2048
COLUMNS = 256


@triton.jit(do_not_specialize=["M"])
def int8_embedding_kernel(
    indices,  # [M]
    weight,  # [V, D] int8 or int16
    scale,  # [V]
    out,  # [M, D]
    M,
    V,
    D,
    stride_wv,
    stride_wd,
    stride_s,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    blocks = tl.cdiv(D, BLOCK_D)
    rows = (tl.program_id(0) // blocks).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = (tl.program_id(0) % blocks).to(tl.int64) * BLOCK_D + tl.arange(0, BLOCK_D)
    index = tl.load(indices + rows, mask=rows < M, other=0).to(tl.int64)
    known = (index >= 0) & (index < V)
    s = tl.load(scale + index * stride_s, mask=known, other=float("nan")).to(tl.float32)
    inside = (rows[:, None] < M) & (columns[None, :] < D)
    at = weight + index[:, None] * stride_wv + columns[None, :] * stride_wd
    levels = tl.load(at, mask=inside & known[:, None], other=0)
    values = levels.to(tl.float32) * s[:, None]
    tl.store(out + rows[:, None] * D + columns[None, :], values.to(out.dtype.element_ty), mask=inside)


def int8_embedding(indices: Tensor, weight: Tensor, scale: Tensor, out_dtype: torch.dtype | None) -> Tensor:
    """Rows of weight [V, D] in floating point. The row of an index outside [0, V) is NaN: a kernel cannot raise."""
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
            warps=4,
            stages=1,
        )
    return out


@functools.lru_cache(maxsize=4096)
def _tiles(M: int, D: int) -> tuple[int, tuple[int, int]]:
    """(programs, (rows, columns) of a program's tile) for an output [M, D]."""
    block_d = min(triton.next_power_of_2(D), COLUMNS)
    block_m = VALUES // block_d
    return triton.cdiv(M, block_m) * triton.cdiv(D, block_d), (block_m, block_d)
