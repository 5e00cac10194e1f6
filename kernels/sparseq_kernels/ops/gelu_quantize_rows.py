"""`gelu_quantize_rows`: GELU and quantization of its rows in one pass."""

from torch import Tensor

from .. import validation as valid
from ..autograd import INFERENCE_ONLY
from ..dispatch import Op
from ..reference.gelu_quantize_rows import gelu_quantize_rows as formula
from .shared.fakes import quantized_like

SCHEMA = "(Tensor x, str approximate='none', int bits=8) -> (Tensor, Tensor)"
OP = Op("gelu_quantize_rows", SCHEMA, formula, no_gradient=INFERENCE_ONLY)


def gelu_quantize_rows(x: Tensor, approximate: str = "none", bits: int = 8) -> tuple[Tensor, Tensor]:
    """`quantize_rows` of y = gelu(x), with y rounded to x's dtype. It feeds the second linear layer of a BERT block.

    Args:
        x: [..., K], floating.
        approximate: "none" or "tanh", as in `torch.nn.functional.gelu`.
        bits: 2 to 16.

    Returns:
        q [..., K] and s [...], as `quantize_rows`. For inference: no gradient.

    Raises:
        InputError: for wrong dtypes, a scalar, other bits, or an input that requires a gradient.
    """
    q, scale = OP(x, approximate, bits)
    return q, scale


@OP.validate
def _validate(op: str, x: Tensor, approximate: str, bits: int) -> None:
    valid.floating(op, "x", x)
    valid.rows(op, "x", x)
    valid.choice(op, "approximation", approximate, ("none", "tanh"))
    valid.bits(op, "bits", bits)


@OP.fake
def _fake(x: Tensor, approximate: str, bits: int) -> tuple[Tensor, Tensor]:
    return quantized_like(x, bits)
