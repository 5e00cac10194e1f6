"""The end of a product: scales, bias, activation and the store, of a whole tile or of parts of its columns."""

import triton
import triton.language as tl

from .numerics import activate, inverse, quantized_bits


@triton.jit
def store_outputs(
    acc, xs, w_scale, bias, out, out_scale, rows, columns, M, N, INTEGERS: tl.constexpr, ACTIVATION: tl.constexpr
):
    """Stores act(acc * xs[:, None] * w_scale[None, :] + bias) to `out` [M, N] in its type; quantized if `out_scale` is
    not None."""
    y = acc.to(tl.float32)
    if INTEGERS:
        y = y * xs[:, None] * tl.load(w_scale + columns, mask=columns < N, other=1.0)[None, :]
    if bias is not None:
        y += tl.load(bias + columns, mask=columns < N, other=0.0).to(tl.float32)[None, :]
    y = activate(y, ACTIVATION)
    if out_scale is not None:
        y = quantized_bits(y, inverse(tl.load(out_scale)), 127, True)
    inside = (rows[:, None] < M) & (columns[None, :] < N)
    tl.store(out + rows.to(tl.int64)[:, None] * N + columns[None, :], y.to(out.dtype.element_ty), mask=inside)


@triton.jit
def halves(acc):
    """The left and the right half of a tile's columns, which are in different registers in a product's layout."""
    return tl.split(tl.permute(tl.reshape(acc, (acc.shape[0], 2, acc.shape[1] // 2)), (0, 2, 1)))


@triton.jit
def store_parts(
    acc,
    xs,
    w_scale,
    bias,
    out,
    out_scale,
    rows,
    first,
    M,
    N,
    INTEGERS: tl.constexpr,
    ACTIVATION: tl.constexpr,
    PARTS: tl.constexpr,
):
    """`store_outputs` of sums whose columns begin at `first`, in PARTS (a power of two) one after the other."""
    if PARTS == 1:
        columns = first + tl.arange(0, acc.shape[1])
        store_outputs(acc, xs, w_scale, bias, out, out_scale, rows, columns, M, N, INTEGERS, ACTIVATION)
    else:
        left, right = halves(acc)
        middle = first + left.shape[1]
        store_parts(left, xs, w_scale, bias, out, out_scale, rows, first, M, N, INTEGERS, ACTIVATION, PARTS // 2)
        store_parts(right, xs, w_scale, bias, out, out_scale, rows, middle, M, N, INTEGERS, ACTIVATION, PARTS // 2)


@triton.jit
def store_tile(
    acc,
    x_scale,
    w_scale,
    bias,
    out,
    out_scale,
    tile_m,
    tile_n,
    M,
    N,
    X_STRIDE: tl.constexpr,
    INTEGERS: tl.constexpr,
    ACTIVATION: tl.constexpr,
    PARTS: tl.constexpr,
):
    """`store_outputs` of a tile's sums, in PARTS of its columns."""
    BLOCK_M: tl.constexpr = acc.shape[0]
    rows = tile_m * BLOCK_M + tl.arange(0, BLOCK_M)
    xs = tl.load(x_scale + rows * X_STRIDE, mask=rows < M, other=1.0)
    first = tile_n * acc.shape[1]
    store_parts(acc, xs, w_scale, bias, out, out_scale, rows, first, M, N, INTEGERS, ACTIVATION, PARTS)
