"""How a floating product is multiplied: the precision of fp32 in matrix units, and torch's own product of halves."""

import torch
from torch import Tensor

from .runtime.device import INTERPRETER, Device

# Whether torch.mm can sum halves in fp32 and return those sums.
MM_HAS_DTYPE = hasattr(torch.ops.aten.mm, "dtype")


def dot_precision(device: Device) -> str:
    """Triton's `input_precision` for a product of fp32, by `torch.set_float32_matmul_precision`.

    "highest" is three TF32 products where the hardware has those.
    """
    if device.arch == INTERPRETER or device.arch == "sm_75":
        return "ieee"
    exact = torch.get_float32_matmul_precision() == "highest"
    if device.amd:
        return "tf32" if device.arch == "gfx942" and not exact else "ieee"
    return "tf32x3" if exact else "tf32"


def input_precision(operand: Tensor, device: Device) -> str:
    """`dot_precision` for an operand of fp32; "ieee" for other types, which leave no choice."""
    return dot_precision(device) if operand.dtype == torch.float32 else "ieee"


def half_product(a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor | None:
    """a @ b of half precision, summed in fp32, in `dtype`; None where torch has no such product."""
    if not a.is_cuda or (dtype != a.dtype and not (dtype == torch.float32 and MM_HAS_DTYPE)):
        return None
    return a @ b if dtype == a.dtype else torch.mm(a, b, out_dtype=dtype)
