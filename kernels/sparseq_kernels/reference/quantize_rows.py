"""The reference of `quantize_rows`."""

from torch import Tensor

from ..numerics import quantize, row_max, scale_from_max


def quantize_rows(x: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    scale = scale_from_max(row_max(x), bits)
    return quantize(x, scale.unsqueeze(-1), bits), scale
