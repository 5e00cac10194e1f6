"""Settings of a quantized layer: bits, how activations are scaled, where scales come from."""

from dataclasses import dataclass

import torch

from sparseq_kernels import InputError
from sparseq_kernels.dtypes import FLOAT_DTYPES

BITS = (4, 8, 16, None)
ACTIVATIONS = ("dynamic", "static")
SCALES = ("max", "lsq")
# The dtypes of weights that the arithmetic is defined for.
DTYPES = tuple(FLOAT_DTYPES.values())


def check_dtype(dtype: torch.dtype, where: str) -> None:
    """Raises InputError, beginning with `where`, for weights that can be neither quantized nor masked."""
    if dtype not in DTYPES:
        known = ", ".join(FLOAT_DTYPES)
        raise InputError(f"{where} has weights of {dtype}: only {known} can be quantized or masked")


@dataclass(frozen=True)
class QuantSettings:
    """Settings of a quantized layer.

    bits: of the weights; None leaves them in floating point. Activations have 8 bits with 4- and 8-bit weights, and 16
    bits with 16-bit weights. activation: `dynamic`, one scale per row found at run time, or `static`, one scale per
    tensor. scale: of the weights and of static activations: from the `max`imum, or learned (`lsq`, Esser et al. 2020).
    """

    bits: int | None = 8
    activation: str = "dynamic"
    scale: str = "max"

    def __post_init__(self) -> None:
        for name, value, choices in (
            ("bits", self.bits, BITS),
            ("activation", self.activation, ACTIVATIONS),
            ("scale", self.scale, SCALES),
        ):
            if value not in choices or isinstance(value, float | bool):
                raise InputError(f"{name} is {value!r}: it must be one of {', '.join(map(repr, choices))}")

    @property
    def input_bits(self) -> int:
        return 16 if self.bits == 16 else 8
