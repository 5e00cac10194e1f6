"""Launches of the products by a masked weight's block index: blocks in which no weight is kept cost nothing.

A block index is the list of tensors that `BlockIndex.tensors()` returns, of the weight's mask.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ..block_index import BLOCK as TILE
from ..numerics import qmax
from .kernels.masked_linear import (
    tile_gradient_kernel,
    tile_gradient_sum_kernel,
    tile_product_kernel,
    tile_values_kernel,
)
from .operands import mask_bytes, scale_stride
from .precision import input_precision
from .runtime.device import current
from .runtime.gemm_config import forced_config
from .runtime.grid import cdiv, run_length
from .runtime.heuristics import block_gradient_config, block_product_config
from .runtime.launch import launch, on

# Rows of a tile that one program masks, and that one adds up: with fewer, more loads are in flight at once.
VALUES_ROWS, SUM_ROWS = 16, 8
WARPS = 4


class _Index(NamedTuple):
    """The tensors of a block index, in their order; see `BlockIndex`."""

    bits: Tensor
    rows: Tensor
    row_counts: Tensor
    columns: Tensor
    column_counts: Tensor
    kept: Tensor
    number_kept: Tensor


def masked_values(
    weight: Tensor,
    mask: Tensor | None,
    block_index: list[Tensor] | None,
    dtype: torch.dtype,
    scale: Tensor | None = None,
    bits: int = 0,
    clip: bool = False,
) -> Tensor:
    """The weight [N, K] in `dtype`, zero where masked.

    With a `block_index` only blocks that keep a weight are written; the memory of the others is uninitialized. weight:
    each row's values side by side. mask: bool [N, K], needed without a block index. scale: fp32 [N], by which values
    are fake-quantized to `bits`; clip: whether some may lie beyond its range.
    """
    N, K = weight.shape
    values = torch.empty((N, K), dtype=dtype, device=weight.device)
    if block_index is None:
        given, kept, count = mask_bytes(mask), None, None
    else:
        index = _Index(*block_index)
        given, kept, count = index.bits, index.kept, index.number_kept
    with on(weight):
        launch(
            tile_values_kernel,
            (cdiv(N, TILE) * cdiv(K, TILE) * (TILE // VALUES_ROWS), 1, 1),
            (weight, given, kept, count, scale, values, N, K, weight.stride(0)),
            (0 if scale is None else qmax(bits), clip, TILE, VALUES_ROWS),
            WARPS,
            1,
        )
    return values


def block_product(
    a: Tensor,
    b: Tensor,
    block_index: list[Tensor],
    forward: bool,
    out: Tensor,
    bias: Tensor | None = None,
    scales: tuple[Tensor, Tensor] | None = None,
) -> None:
    """Writes a b^T + bias if `forward`, else a b, to `out`, over the blocks of b [N, K] that keep a weight.

    a: [M, K] if `forward`, else [M, N], each row's values side by side, of b's dtype. scales: of int8 operands, of a
    (each row's, or one) and of each row of b.
    """
    M, D = a.shape
    C = b.shape[0 if forward else 1]
    index = _Index(*block_index)
    blocks, counts = (index.rows, index.row_counts) if forward else (index.columns, index.column_counts)
    config = forced_config() or block_product_config(M, C, a.element_size(), current())
    block_k = min(config.block_k, TILE)
    a_scale, b_scale = scales or (None, None)
    with on(a):
        launch(
            tile_product_kernel,
            (cdiv(M, config.block_m) * cdiv(C, TILE), 1, 1),
            (a, b, blocks, counts, a_scale, b_scale, bias, out, M, C, D, a.stride(0)),
            (
                forward,
                0 if a_scale is None else scale_stride(a_scale, M),
                input_precision(a, current()),
                D % block_k == 0,
                1 if forward else run_length(C),
                config.block_m,
                TILE,
                block_k,
                config.group_m,
                2 if config.block_m >= 32 * config.num_warps else 1,
            ),
            config.num_warps,
            config.num_stages,
        )


def block_gradient(g: Tensor, x: Tensor, block_index: list[Tensor], dtype: torch.dtype) -> Tensor:
    """(g^T x) o mask [N, K] in `dtype`, for g [M, N] and x [M, K] of one dtype, each row's values side by side.

    Only the blocks that keep a weight are computed.
    """
    (M, N), K = g.shape, x.shape[1]
    index = _Index(*block_index)
    config = forced_config() or block_gradient_config(M, g.element_size(), current())
    programs = config.programs_per_sm * current().processors
    # Where the depth is not shared, no sums are stored.
    sums = torch.empty((programs if config.split_k > 1 else 0, TILE, TILE), dtype=torch.float32, device=g.device)
    out = torch.zeros((N, K), dtype=dtype, device=g.device)
    even = M % config.block_k == 0
    with on(g):
        launch(
            tile_gradient_kernel,
            (programs, 1, 1),
            (
                g,
                x,
                index.bits,
                index.kept,
                index.number_kept,
                out,
                sums,
                M,
                N,
                K,
                g.stride(0),
                x.stride(0),
                config.split_k,
            ),
            (input_precision(g, current()), even, run_length(N), run_length(K), TILE, config.block_k),
            config.num_warps,
            config.num_stages,
        )
        if config.split_k > 1:
            launch(
                tile_gradient_sum_kernel,
                (cdiv(programs, 2) * (TILE // SUM_ROWS), 1, 1),  # At most so many blocks share their depth.
                (sums, index.bits, index.kept, index.number_kept, out, N, K, programs, config.split_k),
                (TILE, SUM_ROWS),
                WARPS,
                1,
            )
    return out
