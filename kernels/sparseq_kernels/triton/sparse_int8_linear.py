from typing import Any

import torch
from torch import Tensor

from ..numerics import CHUNK, as_rows, check_depth, given_scale, result_dtype
from .device import INTERPRETER, current
from .int8_gemm import int8_sum_kernel
from .int8_linear import launch_product, rowwise, vector
from .launch import empty, launch, on
from .plans import Plan, forced, int8_plan
from .quantize_rows import row_levels
from .runtime import cdiv, run_length
from .sparse_int8 import block_sparse_kernel, decode_kernel, decoding_linear_kernel

# Beyond so many rows of x a compressed weight is expanded once, into memory that lives as long as the product: every
# tile of rows would expand it anew.
DECODED_INSIDE_ROWS = 32
DECODE_TILE = (16, CHUNK)


def bitmask_int8_linear(x: Tensor, values: Tensor, bits: Tensor, offsets: Tensor, *rest: Any) -> Tensor:
    return _decoding(x, (values.contiguous(), bits.contiguous(), offsets.contiguous(), "bitmask"), *rest)


def semi_structured_int8_linear(x: Tensor, values: Tensor, indices: Tensor, *rest: Any) -> Tensor:
    values = values.contiguous()
    # The two that are kept of four are one load of 16 bits, which must be aligned.
    values = values.clone() if values.data_ptr() % 2 else values
    return _decoding(x, (values, indices.contiguous(), None, "2:4"), *rest)


Stored = tuple[Tensor, Tensor, Tensor | None, str]


def _decoding(
    x: Tensor,
    stored: Stored,
    weight_scale: Tensor,
    bias: Tensor | None,
    input_scale: Tensor | None,
    activation: str,
    out_dtype: torch.dtype | None,
) -> Tensor:
    N = weight_scale.shape[0]
    out, rows, scale = _prepared(x, N, input_scale, out_dtype)
    (M, K), values = rows.shape, stored[0]
    if 0 in (M, N):
        return out
    bias = None if bias is None else bias.contiguous()
    with on(x):
        if M > DECODED_INSIDE_ROWS:
            weight = empty((N, K), torch.int8, values.device)
            grid = (cdiv(N, DECODE_TILE[0]), max(1, cdiv(K, DECODE_TILE[1])), 1)
            args = (*stored[:3], weight, N, K, cdiv(K, CHUNK))
            launch(decode_kernel, grid, args, (stored[3], *DECODE_TILE), warps=4, stages=1)
            plan = int8_plan(M, N, K, 1, activation, current())
            launch_product(rows, scale, "levels", (weight, vector(weight_scale), bias, out, None), activation, plan)
        else:
            _decoding_product(rows, scale, stored, vector(weight_scale), bias, out, activation)
    return out


def _decoding_plan(M: int, N: int, K: int) -> Plan:
    """Four programs for each processor, by sharing the depth where columns are few: a bitmask's values can be loaded
    only when its bits are there and counted, and meanwhile others compute."""
    device = current()
    block_n = 16
    split = max(1, min(cdiv(K, CHUNK), 4 * device.processors // cdiv(N, block_n)))
    return Plan(16 if M <= 16 else 32, block_n, CHUNK, warps=4, stages=2, split=split)


def _decoding_product(
    x: Tensor, scale: Tensor, stored: Stored, weight_scale: Tensor, bias: Tensor | None, out: Tensor, activation: str
) -> None:
    (M, K), N = x.shape, weight_scale.shape[0]
    plan, stride = forced() or _decoding_plan(M, N, K), int(scale.numel() > 1 or M == 1)
    sums = out if plan.split == 1 else empty((plan.split, M, N), torch.int32, x.device)
    tile = (plan.split, plan.block_m, plan.block_n)
    columns, row_blocks = cdiv(N, plan.block_n), cdiv(M, plan.block_m)
    launch(
        decoding_linear_kernel,
        (columns, plan.split, row_blocks),
        (x, scale, *stored[:3], weight_scale, bias, sums, M, N, K, cdiv(K, CHUNK), x.stride(0)),
        (stride, activation, stored[3], *tile, plan.block_k),
        plan.warps,
        plan.stages,
    )
    if plan.split > 1:
        args = (sums, scale, weight_scale, bias, out, None, M, N)
        constants = (stride, activation, run_length(N), *tile)
        launch(int8_sum_kernel, (columns, row_blocks, 1), args, constants, plan.warps, 1)


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
    out, rows, scale = _prepared(x, N, input_scale, out_dtype)
    M, K = rows.shape
    if 0 in (M, N):
        return out
    plan = forced() or _block_plan(M, r, c)
    parts = plan.output_parts(out.element_size())
    with on(x):
        launch(
            block_sparse_kernel,
            (cdiv(M, plan.block_m) * (N // r), 1, 1),
            (
                rows,
                scale,
                values.contiguous(),
                block_columns.contiguous(),
                offsets.contiguous(),
                order.contiguous(),
                vector(weight_scale),
                None if bias is None else bias.contiguous(),
                out,
                M,
                N,
                K,
                rows.stride(0),
            ),
            (int(scale.numel() > 1 or M == 1), activation, plan.block_m, r, c, plan.block_k, parts),
            plan.warps,
            plan.stages,
        )
    return out


def _block_plan(M: int, r: int, c: int) -> Plan:
    """As tall as x has rows for, since each tile reads its blocks anew."""
    device = current()
    block_k = max(c, 64)
    block_m = 16 if M <= 16 else 32 if M <= 32 else 64 if M <= 128 or device.arch == INTERPRETER else 128
    # Deep enough for an H100's loads, of which each waits for a block's column.
    room = device.shared_bytes // (block_k * (block_m + r)) - 1
    warps = 8 if block_m * r == 128 * 128 else 4
    return Plan(block_m, r, block_k, warps, stages=2 if device.amd else min(5, room))


def _prepared(
    x: Tensor, N: int, input_scale: Tensor | None, out_dtype: torch.dtype | None
) -> tuple[Tensor, Tensor, Tensor]:
    """(the output, still to be written, x as levels [M, K], their scale)."""
    rows = rowwise(as_rows(x))
    check_depth(rows.shape[1])
    out = empty((*x.shape[:-1], N), result_dtype(x, out_dtype), x.device)
    if x.dtype == torch.int8:
        return out, rows, vector(given_scale(input_scale))
    return out, *row_levels(rows, None, None if input_scale is None else vector(input_scale), 8)
