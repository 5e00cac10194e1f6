"""Device code of `int8_embedding`."""

import triton
import triton.language as tl


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
    w_q = tl.load(at, mask=inside & known[:, None], other=0)
    values = w_q.to(tl.float32) * s[:, None]
    tl.store(out + rows[:, None] * D + columns[None, :], values.to(out.dtype.element_ty), mask=inside)
