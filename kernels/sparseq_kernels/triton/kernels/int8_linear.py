"""Device code of `int8_linear` and of `qat_linear`'s forward: int8 products of many rows, and of few.

An operand is int8 (mode "quantized"), or floating and quantized between its load and the product: by scales from the
maximum (mode "max"), which clip nothing, or by given ones (mode "given"), which do.
"""

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_wait

from .epilogue import store_outputs, store_tile
from .numerics import inverse, magnitude_bits, quantized_bits, quantized_float, scale_from_bits
from .tiles import place, tile_place


@triton.jit
def load_operand(pointers, k, K, columns, EVEN_K: tl.constexpr):
    if EVEN_K:
        value = tl.load(pointers + k)
    else:
        value = tl.load(pointers + k, mask=columns[None, :] < K - k, other=0)
    return value


@triton.jit
def quantize_operand(value, factor, scale, MODE: tl.constexpr, QMAX: tl.constexpr, INTEGERS: tl.constexpr):
    """An operand's tile as the product takes it: int8, or for more than 8 bits the fake-quantized values."""
    if MODE != "quantized":
        if INTEGERS:
            value = quantized_bits(value, factor[:, None], QMAX, MODE == "given").to(tl.int8)
        else:
            value = quantized_float(value, factor[:, None], QMAX, MODE == "given") * scale[:, None]
    return value


@triton.jit(do_not_specialize=["M"])
def int8_tile_kernel(
    x,  # [M, K] int8 or floating
    x_scale,  # [M], or one
    w,  # [N, K] int8 or floating
    w_scale,  # [N]
    mask,  # [N, K] uint8, or None
    bias,  # [N], or None
    out,  # [M, N]
    out_scale,  # one, or None
    M,
    N,
    K,
    stride_xm,
    stride_wn,
    X_MODE: tl.constexpr,
    X_STRIDE: tl.constexpr,  # of its scales: 1, or 0 if there is one in all
    X_QMAX: tl.constexpr,
    W_MODE: tl.constexpr,
    W_QMAX: tl.constexpr,
    INTEGERS: tl.constexpr,
    PRECISION: tl.constexpr,
    ACTIVATION: tl.constexpr,
    EVEN_K: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP_M: tl.constexpr,
    PARTS: tl.constexpr,
):
    tiles_m = tl.cdiv(M, BLOCK_M)
    tiles_n = tl.cdiv(N, BLOCK_N)
    depth = tl.arange(0, BLOCK_K)
    for tile in tl.range(tl.program_id(0), tiles_m * tiles_n, tl.num_programs(0)):
        tile_m, tile_n = tile_place(tile, tiles_m, tiles_n, GROUP_M)
        rows, x_rows = place(tile_m, M, BLOCK_M)
        columns, w_rows = place(tile_n, N, BLOCK_N)
        x_at = x + x_rows.to(tl.int64)[:, None] * stride_xm + depth[None, :]
        w_at = w + w_rows.to(tl.int64)[:, None] * stride_wn + depth[None, :]
        xs = x_scale
        x_factor = x_scale
        ws = w_scale
        w_factor = w_scale
        if X_MODE != "quantized":
            xs = tl.load(x_scale + rows * X_STRIDE, mask=rows < M, other=1.0)
            x_factor = inverse(xs)
        if W_MODE != "quantized":
            ws = tl.load(w_scale + columns, mask=columns < N, other=1.0)
            w_factor = inverse(ws)
        acc = tl.zeros((BLOCK_M, BLOCK_N), tl.int32 if INTEGERS else tl.float32)
        for k in range(0, K, BLOCK_K):
            a = load_operand(x_at, k, K, depth, EVEN_K)
            b = load_operand(w_at, k, K, depth, EVEN_K)
            if mask is not None:
                kept = load_operand(mask + w_rows.to(tl.int64)[:, None] * K + depth[None, :], k, K, depth, EVEN_K)
                b = tl.where(kept != 0, b, 0.0)
            a = quantize_operand(a, x_factor, xs, X_MODE, X_QMAX, INTEGERS)
            b = quantize_operand(b, w_factor, ws, W_MODE, W_QMAX, INTEGERS)
            if INTEGERS:
                acc = tl.dot(a, tl.trans(b), acc, out_dtype=tl.int32)
            else:
                acc = tl.dot(a, tl.trans(b), acc, input_precision=PRECISION)
        store_tile(
            acc, x_scale, w_scale, bias, out, out_scale, tile_m, tile_n, M, N, X_STRIDE, INTEGERS, ACTIVATION, PARTS
        )


@triton.jit(do_not_specialize=["M"])
def int8_descriptor_kernel(
    x,  # descriptor of [M, K] int8, in blocks [BLOCK_M, BLOCK_K]
    x_scale,  # [M], or one
    w,  # descriptor of [N, K] int8, in blocks [BLOCK_N, BLOCK_K]
    w_scale,  # [N]
    bias,  # [N], or None
    out,  # [M, N]
    out_scale,  # one, or None
    M,
    N,
    K,
    X_STRIDE: tl.constexpr,  # of its scales: 1, or 0 if there is one in all
    ACTIVATION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP_M: tl.constexpr,
    PARTS: tl.constexpr,
):
    """`int8_tile_kernel` for two int8 operands, whose tiles the hardware copies, with zeros beyond the ends.

    The compiler flattens the two loops, so that the next tile's copies begin while this tile's outputs are stored.
    """
    tl.assume(K > 0)  # Or it also writes out what to do without any depth.
    tiles_m = tl.cdiv(M, BLOCK_M)
    tiles_n = tl.cdiv(N, BLOCK_N)
    for tile in tl.range(tl.program_id(0), tiles_m * tiles_n, tl.num_programs(0), flatten=True):
        tile_m, tile_n = tile_place(tile, tiles_m, tiles_n, GROUP_M)
        acc = tl.zeros((BLOCK_M, BLOCK_N), tl.int32)
        for k in range(0, K, BLOCK_K):
            a = x.load([tile_m * BLOCK_M, k])
            b = w.load([tile_n * BLOCK_N, k])
            acc = tl.dot(a, tl.trans(b), acc, out_dtype=tl.int32)
        store_tile(acc, x_scale, w_scale, bias, out, out_scale, tile_m, tile_n, M, N, X_STRIDE, True, ACTIVATION, PARTS)


@triton.jit(do_not_specialize=["M"])
def int8_skinny_kernel(
    x,  # [M, K] int8 or floating
    x_scale,  # [M], or one; if X_MODE is "max" written here for the sums of SPLIT > 1, else None
    w,  # [N, K] int8
    w_scale,  # [N]
    bias,  # [N], or None
    out,  # [M, N]; if SPLIT > 1 the sums, int32 [SPLIT, M, N]
    out_scale,  # one, or None
    M,
    N,
    K,
    stride_xm,
    stride_wn,
    X_MODE: tl.constexpr,
    X_STRIDE: tl.constexpr,  # of its scales: 1, or 0 if there is one in all
    ACTIVATION: tl.constexpr,
    EVEN_K: tl.constexpr,
    SPLIT: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    WIDE: tl.constexpr,  # how much of a row is searched for its maximum at once
    WAIT: tl.constexpr,  # whether it is launched as dependent on the kernel before, which may have quantized x
):
    if WAIT:
        gdc_wait()
    part = tl.program_id(1)
    rows = tl.program_id(2) * BLOCK_M + tl.arange(0, BLOCK_M)
    in_rows = (rows < M)[:, None]
    columns, w_rows = place(tl.program_id(0), N, BLOCK_N)
    depth = tl.arange(0, BLOCK_K)
    x += rows.to(tl.int64)[:, None] * stride_xm
    w_at = w + w_rows.to(tl.int64)[:, None] * stride_wn + depth[None, :]
    xs = tl.full((BLOCK_M,), 1.0, tl.float32)
    if X_MODE == "max":
        # Every program finds the maxima itself: few rows are in the cache anyway, and no second launch is needed.
        wide = tl.arange(0, WIDE)[None, :]
        largest = tl.zeros((BLOCK_M,), tl.int32)
        for k in range(0, K, WIDE):
            values = tl.load(x + (k + wide), mask=in_rows & (wide < K - k), other=0.0)
            largest = tl.maximum(largest, tl.max(magnitude_bits(values), axis=1))
        xs = scale_from_bits(largest, 127)
        if SPLIT > 1:
            if (tl.program_id(0) == 0) & (part == 0):
                tl.store(x_scale + rows, xs, mask=rows < M)
    elif X_MODE == "given":
        # Through a maximum, beyond which the compiler moves no layout: with a plain load it would have every warp
        # quantize all of x for itself, in the layout of the product's operand.
        again = tl.zeros((1, 16), tl.int32)
        xs = tl.max(tl.load(x_scale + rows[:, None] * X_STRIDE + again, mask=in_rows, other=1.0), axis=1)
    else:
        xs = tl.load(x_scale + rows * X_STRIDE, mask=rows < M, other=1.0)
    x_factor = inverse(xs)
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.int32)
    share = tl.cdiv(tl.cdiv(K, BLOCK_K), SPLIT) * BLOCK_K
    for k in range(part * share, tl.minimum(K, (part + 1) * share), BLOCK_K):
        read = in_rows if EVEN_K else in_rows & (depth[None, :] < K - k)
        a = quantize_operand(tl.load(x + (k + depth)[None, :], mask=read, other=0), x_factor, xs, X_MODE, 127, True)
        acc = tl.dot(a, tl.trans(load_operand(w_at, k, K, depth, EVEN_K)), acc, out_dtype=tl.int32)
    if SPLIT > 1:
        at = (part.to(tl.int64) * M + rows[:, None]) * N + columns[None, :]
        tl.store(out + at, acc, mask=(rows[:, None] < M) & (columns[None, :] < N))
    else:
        store_outputs(acc, xs, w_scale, bias, out, out_scale, rows, columns, M, N, True, ACTIVATION)


@triton.jit(do_not_specialize=["M"])
def int8_sum_kernel(
    sums,  # [SPLIT, M, N] int32
    x_scale,  # [M], or one
    w_scale,  # [N]
    bias,  # [N], or None
    out,  # [M, N]
    out_scale,  # one, or None
    M,
    N,
    X_STRIDE: tl.constexpr,
    ACTIVATION: tl.constexpr,
    RUN: tl.constexpr,
    SPLIT: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """The epilogue of `int8_skinny_kernel` where programs share the depth: adds up, scales and stores."""
    rows, x_rows = place(tl.program_id(1), M, BLOCK_M)
    columns, read = place(tl.program_id(0), N, BLOCK_N, RUN)
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.int32)
    at = sums + x_rows.to(tl.int64)[:, None] * N + read[None, :]
    for _ in range(SPLIT):
        acc += tl.load(at)
        at += M.to(tl.int64) * N
    xs = tl.load(x_scale + rows * X_STRIDE, mask=rows < M, other=1.0)
    store_outputs(acc, xs, w_scale, bias, out, out_scale, rows, columns, M, N, True, ACTIVATION)
