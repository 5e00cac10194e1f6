import functools

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..numerics import as_rows, qmax, storage_dtype
from .launch import empty, launch, on
from .numerics import activate, inverse, level_bits, level_float, magnitude_bits, scale_from_bits

# Values a program of four warps holds: 16 a thread, which is four loads of 16 bytes in fp32. A row up to LONGEST stays
# in the registers of more warps; a longer one is read again for every pass, from the cache.
VALUES = 2048
LONGEST = 8192


@functools.lru_cache(maxsize=4096)
def row_tile(M: int, K: int) -> tuple[int, int, tuple[bool, int, int]]:
    """(programs, warps, (whether a row is held whole, rows of a program, values of one at a time)) for rows [M, K]."""
    block_k = min(max(triton.next_power_of_2(K), 16), LONGEST)
    block_m = max(VALUES // block_k, 1)
    return triton.cdiv(M, block_m), block_m * block_k * 4 // VALUES, (block_k >= K, block_m, block_k)


def rowwise(x: Tensor) -> tuple[Tensor, int, int, int]:
    """(x, M, K, stride of a row) of x [..., K], as rows with their values side by side; a copy only if they are not."""
    K = x.shape[-1]
    if not x.is_contiguous():
        x = as_rows(x)
        x = x if x.stride(1) == 1 else x.contiguous()
        return x, len(x), K, x.stride(0)
    return x, x.shape[:-1].numel(), K, K


@triton.jit
def row_values(x, mask, columns, inside, ACTIVATION: tl.constexpr, BITS: tl.constexpr = False):
    """Some columns of the rows at `x` and `mask` [BLOCK_M, 1], activated, and rounded to x's type as a tensor of them
    would be; 0 where masked and where not `inside`. BITS: the mask comes bit by bit, and eight weights that it drops
    together are not loaded."""
    if BITS:
        byte = tl.load(mask + (columns // 8)[None, :], mask=inside, other=0)
        inside &= byte != 0
    loaded = tl.load(x + columns[None, :], mask=inside, other=0.0)
    values = loaded.to(tl.float32)
    if ACTIVATION != "none":
        values = activate(values, ACTIVATION).to(loaded.dtype).to(tl.float32)
    if BITS:
        values = tl.where(((byte.to(tl.int32) >> (columns % 8)[None, :]) & 1) != 0, values, 0.0)
    elif mask is not None:
        values = tl.where(tl.load(mask + columns[None, :], mask=inside, other=0) != 0, values, 0.0)
    return values


@triton.jit
def store_levels(levels, values, scale, columns, inside, QMAX: tl.constexpr, CLIP: tl.constexpr = False):
    """Writes the integers of `values` [BLOCK_M, BLOCK_K], whose rows' scales are `scale` [BLOCK_M]; 0 for the rows
    without a usable one. Where `levels` is floating it gets the fake-quantized values. CLIP as in `level_bits`."""
    factor = inverse(scale)[:, None]
    if levels.dtype.element_ty.is_floating():
        found = level_float(values, factor, QMAX, CLIP) * scale[:, None]
    else:
        found = tl.where((scale == scale)[:, None], level_bits(values, factor, QMAX, CLIP), 0)
    tl.store(levels + columns[None, :], found.to(levels.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["M"])
def quantize_rows_kernel(
    x,  # [M, K]
    mask,  # uint8 [M, K], or if BITS [M, ceil(K / 8)], or None
    levels,  # [M, K] int8 or int16, or floating for fake-quantized values, or None
    scales,  # [M], written; if GIVEN [M] or one, read
    M,
    K,
    stride_xm,
    QMAX: tl.constexpr,
    ACTIVATION: tl.constexpr,
    GIVEN: tl.constexpr,
    SCALE_STRIDE: tl.constexpr,  # 1, or 0 if there is one scale in all
    CLIP: tl.constexpr,
    BITS: tl.constexpr,
    WHOLE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    rows = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tl.arange(0, BLOCK_K)
    in_rows = rows[:, None] < M
    x += rows[:, None] * stride_xm
    if mask is not None:
        mask += rows[:, None] * (tl.cdiv(K, 8) if BITS else K)
    # A loop that the compiler sees to run once is none.
    end = BLOCK_K if WHOLE else K
    values = tl.zeros((BLOCK_M, BLOCK_K), tl.float32)
    if GIVEN:
        scale = tl.load(scales + rows * SCALE_STRIDE, mask=rows < M, other=1.0)
    else:
        largest = tl.zeros((BLOCK_M,), tl.int32)
        for start in range(0, end, BLOCK_K):
            inside = in_rows & (columns[None, :] < K - start)
            values = row_values(x, mask, start + columns, inside, ACTIVATION, BITS)
            largest = tl.maximum(largest, tl.max(magnitude_bits(values), axis=1))
        scale = scale_from_bits(largest, QMAX)
        tl.store(scales + rows, scale, mask=rows < M)
    if levels is not None:
        levels += rows[:, None] * K
        for start in range(0, end, BLOCK_K):
            inside = in_rows & (columns[None, :] < K - start)
            if GIVEN or not WHOLE:
                values = row_values(x, mask, start + columns, inside, ACTIVATION, BITS)
            store_levels(levels, values, scale, start + columns, inside, QMAX, CLIP)


def quantize_rows(x: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    return activate_quantize_rows(x, "none", bits)


def activate_quantize_rows(x: Tensor, activation: str, bits: int) -> tuple[Tensor, Tensor]:
    """quantize_rows(y) of y = activation(x) in x's dtype; `activation` as in `numerics.activate`. y is not stored."""
    levels = empty(x.shape, storage_dtype(bits), x.device)
    scales = empty(x.shape[:-1], torch.float32, x.device)
    _run(x, None, levels, scales, bits, activation)
    return levels, scales


def row_scales(rows: Tensor, bits: int, mask: Tensor | None = None, packed: bool = False) -> Tensor:
    """The scales alone, fp32 [M], of rows [M, K], or of the values that a `mask` keeps: bool [M, K], or if `packed`
    bit by bit, uint8 [M, ceil(K / 8)]."""
    scales = empty(rows.shape[:1], torch.float32, rows.device)
    _run(rows, mask, None, scales, bits, packed=packed)
    return scales


def row_levels(
    rows: Tensor, mask: Tensor | None, scale: Tensor | None, bits: int, packed: bool = False
) -> tuple[Tensor, Tensor]:
    """(levels [M, K], scale) of rows [M, K]: by the fp32 `scale`, [M] or one, beyond which values are clipped, or else
    by each row's own from its maximum [M]. mask, packed: as for `row_scales`."""
    levels = empty(rows.shape, storage_dtype(bits), rows.device)
    if scale is None:
        found = empty(rows.shape[:1], torch.float32, rows.device)
        _run(rows, mask, levels, found, bits, packed=packed)
        return levels, found
    _run(rows, mask, levels, scale, bits, given=True, clip=True, packed=packed)
    return levels, scale


def fake_quantized(
    rows: Tensor, mask: Tensor | None, scale: Tensor, bits: int, clip: bool, dtype: torch.dtype
) -> Tensor:
    """The values [M, K] that `row_levels` of the fp32 `scale` [M] stand for, in `dtype`. clip: whether values may lie
    beyond the scale's range, because it is no maximum."""
    values = empty(rows.shape, dtype, rows.device)
    _run(rows, mask, values, scale, bits, given=True, clip=clip)
    return values


def _run(
    x: Tensor,
    mask: Tensor | None,
    levels: Tensor | None,
    scales: Tensor,
    bits: int,
    activation: str = "none",
    given: bool = False,
    clip: bool = False,
    packed: bool = False,
) -> None:
    if x.shape[:-1].numel() == 0:
        return
    rows, M, K, stride = rowwise(x)
    programs, warps, tile = row_tile(M, K)
    kept = None if mask is None else mask.contiguous().view(torch.uint8)
    with on(x):
        launch(
            quantize_rows_kernel,
            (programs, 1, 1),
            (rows, kept, levels, scales, M, K, stride),
            (qmax(bits), activation, given, int(scales.numel() > 1 or M == 1), clip, packed, *tile),
            warps=warps,
            stages=1,
        )
