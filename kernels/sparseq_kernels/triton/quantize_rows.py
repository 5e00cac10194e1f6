"""Host code of `quantize_rows`, and of what other ops need of it: scales alone, given scales, masks, activations."""

import functools

import torch
import triton
from torch import Tensor

from ..numerics import qmax, storage_dtype
from ..registry import implementation
from .kernels.quantize_rows import quantize_rows_kernel
from .operands import mask_bytes, row_layout, scale_stride
from .runtime.device import current
from .runtime.heuristics import SKINNY_ROWS
from .runtime.launch import empty, launch, on

# Values that a program of four warps holds: 16 a thread, which is four loads of 16 bytes in fp32. A row of up to
# LONGEST values stays in the registers of more warps; a longer one is read again, from the cache, for every pass.
VALUES = 2048
LONGEST = 8192


@functools.lru_cache(maxsize=4096)
def row_tile(M: int, K: int) -> tuple[int, int, tuple[bool, int, int]]:
    """(programs, warps, (whether a row is held whole, rows of a program, values of one at a time)) for rows [M, K]."""
    block_k = min(max(triton.next_power_of_2(K), 16), LONGEST)
    block_m = max(VALUES // block_k, 1)
    return triton.cdiv(M, block_m), block_m * block_k * 4 // VALUES, (block_k >= K, block_m, block_k)


@implementation("quantize_rows", "triton")
def quantize_rows(x: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    return activate_quantize_rows(x, "none", bits)


def activate_quantize_rows(x: Tensor, activation: str, bits: int) -> tuple[Tensor, Tensor]:
    """quantize_rows(y) of y = activation(x) in x's dtype, without storing y. activation: one of kernels.numerics'."""
    x_q = empty(x.shape, storage_dtype(bits), x.device)
    scales = empty(x.shape[:-1], torch.float32, x.device)
    _run(x, None, x_q, scales, bits, activation)
    return x_q, scales


def row_scales(rows: Tensor, bits: int, mask: Tensor | None = None, packed: bool = False) -> Tensor:
    """The scales alone, fp32 [M], of rows [M, K].

    mask: which values count; bool [M, K], or if `packed` bit by bit, uint8 [M, ceil(K / 8)].
    """
    scales = empty(rows.shape[:1], torch.float32, rows.device)
    _run(rows, mask, None, scales, bits, packed=packed)
    return scales


def quantized_rows(
    rows: Tensor, mask: Tensor | None, scale: Tensor | None, bits: int, packed: bool = False
) -> tuple[Tensor, Tensor]:
    """(integers [M, K], scale fp32) of rows [M, K].

    scale: fp32 [M] or one, beyond whose range values are clipped; None for each row's own, from its maximum. mask,
    packed: as for `row_scales`.
    """
    x_q = empty(rows.shape, storage_dtype(bits), rows.device)
    if scale is None:
        found = empty(rows.shape[:1], torch.float32, rows.device)
        _run(rows, mask, x_q, found, bits, packed=packed)
        return x_q, found
    _run(rows, mask, x_q, scale, bits, given=True, clip=True, packed=packed)
    return x_q, scale


def fake_quantized(
    rows: Tensor, mask: Tensor | None, scale: Tensor, bits: int, clip: bool, dtype: torch.dtype
) -> Tensor:
    """integers * scale [M, K] in `dtype`, for the integers of `quantized_rows` with the fp32 `scale` [M].

    clip: whether values may lie beyond the scale's range, because it is no maximum.
    """
    values = empty(rows.shape, dtype, rows.device)
    _run(rows, mask, values, scale, bits, given=True, clip=clip)
    return values


def _run(
    x: Tensor,
    mask: Tensor | None,
    x_q: Tensor | None,
    scales: Tensor,
    bits: int,
    activation: str = "none",
    given: bool = False,
    clip: bool = False,
    packed: bool = False,
) -> None:
    if x.shape[:-1].numel() == 0:
        return
    rows, M, K, stride = row_layout(x)
    programs, num_warps, tile = row_tile(M, K)
    with on(x):
        # Before a product of many rows no signal: its programs, which wait, would take the place of these.
        signal = M <= SKINNY_ROWS and current().dependent_launch
        launch(
            quantize_rows_kernel,
            (programs, 1, 1),
            (rows, mask_bytes(mask), x_q, scales, M, K, stride),
            (qmax(bits), activation, given, scale_stride(scales, M), clip, packed, *tile, signal),
            num_warps=num_warps,
            num_stages=1,
        )
