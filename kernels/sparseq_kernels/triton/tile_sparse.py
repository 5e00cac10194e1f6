"""Launches the kernels of `tile_gemm`. `tiles`: what `BlockIndex.tensors()` returns, of the mask in question."""

import torch
from torch import Tensor

from ..block_index import BLOCK as TILE
from ..numerics import qmax
from .device import INTERPRETER, Device, current
from .launch import launch, on
from .plans import forced, tile_gradient_plan, tile_plan
from .runtime import cdiv, run_length
from .tile_gemm import tile_gradient_kernel, tile_gradient_sum_kernel, tile_product_kernel, tile_values_kernel

VALUES_WARPS = 4


def masked_values(
    weight: Tensor,
    mask: Tensor | None,
    tiles: list[Tensor] | None,
    dtype: torch.dtype,
    scale: Tensor | None = None,
    bits: int = 0,
    clip: bool = False,
) -> Tensor:
    """The weight [N, K] in `dtype`, zero where masked; with `tiles` only of those that keep anything, and what lies in
    the others means nothing. weight: its rows' values side by side. mask: bool [N, K], without tiles. scale: fp32 [N],
    by which values are fake-quantized to `bits`; clip: whether some may lie beyond its range."""
    N, K = weight.shape
    values = torch.empty((N, K), dtype=dtype, device=weight.device)
    if tiles is None:
        assert mask is not None
        kept = count = None
        given = mask.contiguous().view(torch.uint8)
    else:
        given, kept, count = tiles[0], tiles[5], tiles[6]
    with on(weight):
        launch(
            tile_values_kernel,
            (cdiv(N, TILE) * cdiv(K, TILE), 1, 1),
            (weight, given, kept, count, scale, values, N, K, weight.stride(0)),
            (0 if scale is None else qmax(bits), clip, TILE),
            VALUES_WARPS,
            1,
        )
    return values


def tile_product(
    a: Tensor,
    b: Tensor,
    tiles: list[Tensor],
    forward: bool,
    out: Tensor,
    bias: Tensor | None = None,
    scales: tuple[Tensor, Tensor] | None = None,
) -> None:
    """Writes a b^T + bias if `forward`, else a b, to `out`, over the tiles of b [N, K] that keep anything.

    a: [M, K] if `forward`, else [M, N], its rows' values side by side, of b's dtype. scales: of int8 operands, of a
    (each row's, or one) and of each row of b."""
    M, D = a.shape
    C = b.shape[0 if forward else 1]
    lists, counts = (tiles[1], tiles[2]) if forward else (tiles[3], tiles[4])
    plan = forced() or tile_plan(M, C, a.element_size(), current())
    block_k = min(plan.block_k, TILE)
    a_scale, b_scale = scales or (None, None)
    with on(a):
        launch(
            tile_product_kernel,
            (cdiv(M, plan.block_m) * cdiv(C, TILE), 1, 1),
            (a, b, lists, counts, a_scale, b_scale, bias, out, M, C, D, a.stride(0)),
            (
                forward,
                int(a_scale is not None and (a_scale.numel() > 1 or M == 1)),
                precision(a, current()),
                D % block_k == 0,
                1 if forward else run_length(C),
                plan.block_m,
                TILE,
                block_k,
                plan.group_m,
                2 if plan.block_m >= 32 * plan.warps else 1,
            ),
            plan.warps,
            plan.stages,
        )


def tile_gradient(g: Tensor, x: Tensor, tiles: list[Tensor], dtype: torch.dtype) -> Tensor:
    """(g^T x) o mask in `dtype`, of g [M, N] and x [M, K] of one dtype, their rows' values side by side; only those
    tiles are computed that keep anything."""
    (M, N), K = g.shape, x.shape[1]
    bits, kept, count = tiles[0], tiles[5], tiles[6]
    plan = forced() or tile_gradient_plan(M, g.element_size(), current())
    programs = plan.resident * current().processors
    # Where the depth is not shared, no sums are stored.
    sums = torch.empty((programs if plan.split > 1 else 0, TILE, TILE), dtype=torch.float32, device=g.device)
    out = torch.zeros((N, K), dtype=dtype, device=g.device)
    with on(g):
        launch(
            tile_gradient_kernel,
            (programs, 1, 1),
            (g, x, bits, kept, count, out, sums, M, N, K, g.stride(0), x.stride(0), plan.split),
            (precision(g, current()), M % plan.block_k == 0, run_length(N), run_length(K), TILE, plan.block_k),
            plan.warps,
            plan.stages,
        )
        if plan.split > 1:
            launch(
                tile_gradient_sum_kernel,
                (cdiv(programs, 2), 1, 1),  # Only so many tiles at most are shared.
                (sums, bits, kept, count, out, N, K, programs, plan.split),
                (TILE,),
                VALUES_WARPS,
                1,
            )
    return out


def precision(operand: Tensor, device: Device) -> str:
    """`dot_precision` where there is a choice."""
    return dot_precision(device) if operand.dtype == torch.float32 else "ieee"


def dot_precision(device: Device) -> str:
    """How matrix units multiply fp32: as `torch.set_float32_matmul_precision` says, "highest" by three TF32 products
    where the hardware has those."""
    if device.arch == INTERPRETER or device.arch == "sm_75":
        return "ieee"
    exact = torch.get_float32_matmul_precision() == "highest"
    if device.amd:
        return "tf32" if device.arch == "gfx942" and not exact else "ieee"
    return "tf32x3" if exact else "tf32"
