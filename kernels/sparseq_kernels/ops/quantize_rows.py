"""`quantize_rows`: integers and scales of the rows of a tensor."""

from torch import Tensor

from .. import validation as valid
from ..dispatch import Op
from ..reference.quantize_rows import quantize_rows as formula
from .shared.fakes import quantized_like

OP = Op("quantize_rows", "(Tensor x, int bits=8) -> (Tensor, Tensor)", formula)


def quantize_rows(x: Tensor, bits: int = 8) -> tuple[Tensor, Tensor]:
    """Quantizes each row of x symmetrically: q = round(x / s) in [-qmax, qmax], with s = max|x| / qmax of the row.

    Args:
        x: [..., K], floating.
        bits: 2 to 16; qmax = 2^(bits - 1) - 1.

    Returns:
        q [..., K], int8 up to 8 bits and int16 above; s [...], fp32 (fp64 for fp64 x). Constants to autograd.

    Raises:
        InputError: for a scalar, another dtype or other bits.
    """
    q, scale = OP(x, bits)
    return q, scale


@OP.validate
def _validate(op: str, x: Tensor, bits: int) -> None:
    valid.floating(op, "x", x)
    valid.rows(op, "x", x)
    valid.bits(op, "bits", bits)


@OP.fake
def _fake(x: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    return quantized_like(x, bits)
