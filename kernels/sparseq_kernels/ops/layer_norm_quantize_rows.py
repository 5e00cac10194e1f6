"""`layer_norm_quantize_rows`: residual sum, LayerNorm and quantization of its rows in one pass."""

import math

import torch
from torch import Tensor

from .. import validation as valid
from ..autograd import INFERENCE_ONLY
from ..dispatch import Op
from ..errors import InputError
from ..reference.layer_norm_quantize_rows import layer_norm_quantize_rows as formula
from .shared.fakes import quantized_like

SCHEMA = (
    "(Tensor x, Tensor? residual, Tensor weight, Tensor bias, float eps=1e-12, int bits=8) -> (Tensor, Tensor, Tensor)"
)
OP = Op("layer_norm_quantize_rows", SCHEMA, formula, no_gradient=INFERENCE_ONLY)


def layer_norm_quantize_rows(
    x: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor, eps: float = 1e-12, bits: int = 8
) -> tuple[Tensor, Tensor, Tensor]:
    """`quantize_rows` of y = layer_norm(x + residual) over the last dimension, with y rounded to x's dtype.

    Args:
        x: [..., K], floating.
        residual: [..., K], floating, or None.
        weight, bias: [K], floating.
        eps: added to the variance.
        bits: 2 to 16.

    Returns:
        q [..., K] and s [...], as `quantize_rows`, and y [..., K] in x's dtype. For inference: no gradient.

    Raises:
        InputError: for wrong dtypes, shapes or numbers, or an input that requires a gradient.
    """
    q, scale, y = OP(x, residual, weight, bias, eps, bits)
    return q, scale, y


@OP.validate
def _validate(op: str, x: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor, eps: float, bits: int) -> None:
    valid.floating(op, "x", x)
    valid.rows(op, "x", x)
    for name, tensor in (("weight", weight), ("bias", bias)):
        valid.floating(op, name, tensor)
        valid.shape(op, name, tensor, x.shape[-1:])
    valid.floating(op, "residual", residual)
    valid.shape(op, "residual", residual, x.shape)
    if not (0 <= eps < math.inf):
        raise InputError(f"{op}: eps must be a finite number of at least 0, not {eps}")
    valid.bits(op, "bits", bits)


@OP.fake
def _fake(
    x: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor, eps: float, bits: int
) -> tuple[Tensor, Tensor, Tensor]:
    return *quantized_like(x, bits), torch.empty(x.shape, dtype=x.dtype, device=x.device)
