import torch
from gpu_or_interpreter import DEVICE

# Three such rows reach beyond 2^31 values, though their number and this one fit 32 bits.
FAR = 2**30 + 64


def far_rows(columns: int, dtype: torch.dtype, start: int = 0) -> torch.Tensor:
    """Unwritten memory as three rows of up to 128 columns, FAR values apart. No page between them is touched."""
    torch.utils.deterministic.fill_uninitialized_memory = False
    try:
        memory = torch.empty(2 * FAR + 128, dtype=dtype, device=DEVICE)
    finally:
        torch.utils.deterministic.fill_uninitialized_memory = True
    return memory.as_strided((3, columns), (FAR, 1), start)
