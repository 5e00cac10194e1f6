"""Quantization as every backend defines it: rounding to integers, masks, clipping, and LSQ's gradient."""

import torch
from torch import Tensor
from torch.compiler import is_compiling

from ..errors import InputError
from ..torch_internals import is_plain_tensor
from .ranges import CLIP_TOLERANCE, MAX_INT8_DEPTH, compute_dtype, qmax, reciprocal, storage_dtype


def quantize(x: Tensor, scale: Tensor, bits: int) -> Tensor:
    """round(x / scale), clamped, as integers; `scale` broadcasts against x. 0 where the result is NaN."""
    limit = qmax(bits)
    values = torch.round(x.to(compute_dtype(x)) * reciprocal(scale)).clamp(-limit, limit)
    return values.nan_to_num(nan=0.0).to(storage_dtype(bits))


def masked(weight: Tensor, mask: Tensor | None) -> Tensor:
    """The weight with zeros where the bool `mask` is False; the weight itself without a mask."""
    return weight if mask is None else torch.where(mask, weight, weight.new_zeros(()))


# By the size of a value in bytes.
_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@torch.no_grad()
def mask_(weight: Tensor, mask: Tensor) -> Tensor:
    """`masked` in place, to the bit: zero where the bool `mask` is False, whatever was there. Not for autograd."""
    if not (weight.is_cpu and mask.is_cpu and is_plain_tensor(weight) and is_plain_tensor(mask)) or is_compiling():
        return weight.masked_fill_(~mask, 0)
    # On a CPU masked_fill_ is slower. By a product of their bits NaN becomes zero, too.
    weight.view(_INTEGERS[weight.element_size()]).mul_(mask)
    return weight


def uses_integers(weight_bits: int, input_bits: int) -> bool:
    """Whether a product is one of int8 values: up to 8 bits on both sides. Wider integers are fake-quantized."""
    return weight_bits <= 8 and input_bits <= 8


def check_depth(depth: int) -> None:
    """Raises InputError if an int32 sum of `depth` products of int8 values could overflow."""
    if depth > MAX_INT8_DEPTH:
        raise InputError(
            f"in_features is {depth}, above {MAX_INT8_DEPTH}: an int32 sum of int8 products could overflow"
        )


def flat_scale(scale: Tensor) -> Tensor:
    """The scale as a vector [n], in compute_dtype."""
    return scale.reshape(-1).to(compute_dtype(scale))


def given_scale(input_scale: Tensor | None) -> Tensor:
    """The scale that came with int8 activations, as it came. InputError if there is none."""
    if input_scale is None:
        raise InputError("int8 activations need their scale: pass input_scale, one value a row or one in all")
    return input_scale


def clip_and_slope(x: Tensor, scale: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Where x is inside the clip range (bool), and d fake_quant / d scale by LSQ.

    The slope is round(v) - v inside and +-qmax outside, for v = x / scale (Esser et al. 2020, equation 3).
    """
    limit = qmax(bits)
    v = x.to(compute_dtype(x)) * reciprocal(scale)
    inside = v.abs() <= limit * CLIP_TOLERANCE
    return inside, torch.where(inside, torch.round(v) - v, v.clamp(-limit, limit))


def lsq_gradient_scale(values: int, scales: int, bits: int) -> float:
    """1 / sqrt(values that share one scale * qmax), which balances the updates of a scale and of its weights (Esser et
    al. 2020, section 2.2)."""
    return (max(values // max(scales, 1), 1) * qmax(bits)) ** -0.5
