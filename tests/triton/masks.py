"""Masks whose tiles are empty, full, or hold a few weights."""

import torch
from gpu_or_interpreter import DEVICE
from torch import Tensor

from sparseq_kernels.block_index import BLOCK, BlockIndex

PATTERNS = ("tiles", "thin", "unstructured", "rows", "columns")


def make_mask(N: int, K: int, pattern: str = "tiles", density: float = 0.5, seed: int = 0) -> Tensor:
    """bool [N, K]. density: of whole tiles ("tiles"), of tiles with a few weights each ("thin"), of weights, of rows of
    the weight, or of its columns."""
    generator = torch.Generator().manual_seed(seed)
    if pattern in ("tiles", "thin"):
        keep = torch.rand(-(-N // BLOCK), -(-K // BLOCK), generator=generator) < density
        mask = keep.repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)[:N, :K]
        if pattern == "thin":
            mask = mask & (torch.rand(N, K, generator=generator) < 0.1)
    else:
        shape = {"rows": (N, 1), "columns": (1, K)}.get(pattern, (N, K))
        mask = (torch.rand(shape, generator=generator) < density).expand(N, K)
    return mask.contiguous().to(DEVICE)


def lists(mask: Tensor) -> list[Tensor]:
    return BlockIndex.from_mask(mask).tensors()
