"""Host code of column sums: the gradient of a bias."""

import torch
from torch import Tensor

from .kernels.column_sum import column_sum_kernel
from .runtime.device import current
from .runtime.grid import cdiv
from .runtime.launch import launch, on

BLOCK_M, BLOCK_N = 32, 64
# Up to so many rows one program adds up a block of columns. More rows are shared among programs, of FEWEST rows each.
WHOLE, FEWEST = 256, 64
# Of the second pass, over the programs' sums.
SUMS_BLOCK = (16, 128)


def column_sum(x: Tensor, dtype: torch.dtype) -> Tensor:
    """x.sum(0), added up in fp32, in `dtype`. x: [M, N], each row's values side by side."""
    M, N = x.shape
    if x.dtype == torch.float64 or 0 in (M, N):
        return x.sum(0, dtype=dtype)
    out = torch.empty(N, dtype=dtype, device=x.device)
    columns = cdiv(N, BLOCK_N)
    # Four programs for each SM, but no fewer than 16 in all for each block of columns.
    programs = 1 if M <= WHOLE else min(cdiv(M, FEWEST), max(16, 4 * current().processors // columns))
    with on(x):
        if programs == 1:
            _launch(x, out, 1, (BLOCK_M, BLOCK_N))
        else:
            sums = torch.empty((programs, N), dtype=torch.float32, device=x.device)
            _launch(x, sums, programs, (BLOCK_M, BLOCK_N))
            _launch(sums, out, 1, SUMS_BLOCK)
    return out


def _launch(x: Tensor, out: Tensor, programs: int, block: tuple[int, int]) -> None:
    M, N = x.shape
    args = (x, out, M, N, x.stride(0), cdiv(cdiv(M, programs), block[0]) * block[0])
    launch(column_sum_kernel, (cdiv(N, block[1]), programs, 1), args, block, num_warps=4, num_stages=1)
