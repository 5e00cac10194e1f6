"""The numbers that every backend shares: integer ranges, scales and rounding.

Integers are symmetric, [-qmax, qmax] with qmax = 2^(bits-1) - 1 (127 for int8), and round half to even. A value x with
scale s becomes q = clamp(round(x * (1/s)), -qmax, qmax): one multiplication by the reciprocal, the same on every
backend, so that integers agree bit for bit. Arithmetic is fp32 (fp64 for fp64 tensors, which only tests use).
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

# Below this a row counts as all zero: its reciprocal scale would overflow, and no network means such values.
ZERO_BELOW = 2.0**-100

# Beyond this many products of int8 values, -128 among them, an int32 sum could overflow.
MAX_INT8_DEPTH = (2**31 - 1) // (128 * 128)

# x * (1/s) of a row's own maximum may come out a rounding or two above qmax; such a value is not clipped.
CLIP_TOLERANCE = 1 + 2.0**-20


def qmax(bits: int) -> int:
    """The largest integer of a symmetric `bits`-bit range: 127 for 8."""
    return (1 << (bits - 1)) - 1


def storage_dtype(bits: int) -> torch.dtype:
    """The integer dtype that holds one `bits`-bit value: int8 up to 8 bits, int16 up to 16."""
    return torch.int8 if bits <= 8 else torch.int16


def compute_dtype(x: Tensor) -> torch.dtype:
    """fp32 for fp16, bf16 and fp32 tensors; fp64 for fp64."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def any_fp64(args: Iterable[Any]) -> bool:
    """Whether an fp64 tensor is among an op's arguments."""
    for arg in args:  # noqa: SIM110 - every call on a GPU asks, and any() takes half as long again
        if isinstance(arg, Tensor) and arg.dtype is torch.float64:
            return True
    return False


def scale_from_max(largest: Tensor, bits: int) -> Tensor:
    """The scale max|x| / qmax for each entry of `largest` = max|x|.

    1 where the maximum is (as good as) zero, so that zeros stay zeros; NaN where it is Inf or NaN, so that whatever
    is computed from such a row is NaN and cannot pass for a number.
    """
    # By a tensor: by a number torch would multiply with its reciprocal on a GPU, which rounds otherwise.
    scale = torch.where(largest < ZERO_BELOW, torch.ones_like(largest), largest / torch.full_like(largest, qmax(bits)))
    return torch.where(torch.isfinite(largest), scale, torch.full_like(largest, float("nan")))


def reciprocal(scale: Tensor) -> Tensor:
    """1 / scale in compute_dtype: the factor from a value to its quantized value, before rounding."""
    return 1 / scale.to(compute_dtype(scale))


def row_max(x: Tensor) -> Tensor:
    """max|x| over the last dimension, [..., K] -> [...], in compute_dtype; 0 where K is 0."""
    if x.shape[-1] == 0:
        return x.new_zeros(x.shape[:-1], dtype=compute_dtype(x))
    return x.abs().amax(dim=-1).to(compute_dtype(x))


def as_rows(x: Tensor) -> Tensor:
    """[..., K] -> [M, K], also where M or K is 0."""
    if x.dim() == 2:
        return x
    return x.reshape(x.shape[:-1].numel(), x.shape[-1])


def positive(scale: Tensor) -> Tensor:
    """A learned scale made safe to divide by: its absolute value, at least ZERO_BELOW (differentiable)."""
    return scale.abs().clamp_min(ZERO_BELOW)
