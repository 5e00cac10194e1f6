"""Host code of `gelu_quantize_rows`."""

from torch import Tensor

from ..registry import implementation
from .quantize_rows import activate_quantize_rows


@implementation("gelu_quantize_rows", "triton")
def gelu_quantize_rows(x: Tensor, approximate: str, bits: int) -> tuple[Tensor, Tensor]:
    return activate_quantize_rows(x, "gelu" if approximate == "none" else "gelu_tanh", bits)
