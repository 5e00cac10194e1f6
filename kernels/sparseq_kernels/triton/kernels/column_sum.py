"""Device code of column sums: the gradient of a bias."""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["M", "rows_each"])
def column_sum_kernel(
    x,  # [M, N]
    out,  # [programs, N]
    M,
    N,
    stride_xm,
    rows_each,  # rows that a program adds up
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """out[i] = the sum over the i-th `rows_each` rows of x, in fp32 and in an order that never changes."""
    columns = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    rows = tl.arange(0, BLOCK_M)
    first = tl.program_id(1) * rows_each
    end = tl.minimum(M, first + rows_each)
    x += columns[None, :]
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(first, end, BLOCK_M):
        at = (start + rows)[:, None]
        inside = (at < end) & (columns[None, :] < N)
        acc += tl.load(x + at.to(tl.int64) * stride_xm, mask=inside, other=0.0).to(tl.float32)
    total = tl.sum(acc, axis=0).to(out.dtype.element_ty)
    tl.store(out + tl.program_id(1).to(tl.int64) * N + columns, total, mask=columns < N)
