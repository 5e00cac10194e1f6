"""`fake_quant`: quantize, then dequantize, with a gradient for x and for the scale."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import validation as valid
from ..dispatch import Op
from ..errors import InputError
from ..reference import fake_quant as reference

OP = Op("fake_quant", "(Tensor x, Tensor? scale=None, int bits=8) -> Tensor", reference.fake_quant, ("x", "scale"))
BACKWARD = Op(
    "fake_quant_backward",
    "(Tensor grad, Tensor? x, Tensor? scale, int bits) -> (Tensor, Tensor)",
    reference.fake_quant_backward,
)


def fake_quant(x: Tensor, scale: Tensor | None = None, bits: int = 8) -> Tensor:
    """clamp(round(x / scale), -qmax, qmax) * scale, with qmax = 2^(bits - 1) - 1.

    The gradient for x is straight-through inside the clip range and zero outside (Bengio et al. 2013); that for the
    scale is LSQ's (Esser et al. 2020, equation 3). With scales from the rows' own maxima nothing is clipped.

    Args:
        x: any shape, floating.
        scale: floating, positive; a scalar, or broadcasts against x. None for max|x| / qmax of each row, x [..., K].
        bits: 2 to 16.

    Returns:
        x's shape and dtype.

    Raises:
        InputError: for wrong dtypes, other bits, a scale that does not broadcast to x's shape, or a scalar x without a
            scale.
    """
    y: Tensor = OP(x, scale, bits)
    return y


@OP.validate
def _validate(op: str, x: Tensor, scale: Tensor | None, bits: int) -> None:
    valid.floating(op, "x", x)
    valid.floating(op, "scale", scale)
    valid.bits(op, "bits", bits)
    if scale is None:
        valid.rows(op, "x", x)
        return
    missing = x.dim() - scale.dim()
    # A single value needs no look at x, whose shape may be symbolic.
    fits = scale.dim() == 0 or (
        missing >= 0 and all(s == n or s == 1 for s, n in zip(scale.shape, x.shape[missing:], strict=True))
    )
    if not fits:
        raise InputError(f"{op}: a scale of shape {tuple(scale.shape)} does not broadcast to x's, {tuple(x.shape)}")


@BACKWARD.validate
def _validate_backward(op: str, grad: Tensor, x: Tensor | None, scale: Tensor | None, bits: int) -> None:
    valid.floating(op, "grad", grad)
    if (x is None) != (scale is None):
        raise InputError(f"{op}: x and scale belong together: give both, or neither for scales of the rows' own maxima")
    if x is not None:
        valid.shape(op, "grad", grad, x.shape)
    _validate(op, grad if x is None else x, scale, bits)


@OP.fake
def _fake(x: Tensor, scale: Tensor | None, bits: int) -> Tensor:
    shape = x.shape if scale is None else torch.broadcast_shapes(x.shape, scale.shape)
    return torch.empty(shape, dtype=x.dtype, device=x.device)


@BACKWARD.fake
def _fake_backward(grad: Tensor, x: Tensor | None, scale: Tensor | None, bits: int) -> tuple[Tensor, Tensor]:
    grad_scale = grad.new_empty(0) if scale is None else scale.new_empty(scale.shape)
    return torch.empty(grad.shape, dtype=grad.dtype, device=grad.device), grad_scale


@OP.setup_context
def _setup_context(ctx: Any, args: tuple[Any, ...], output: Any) -> None:
    x, scale, bits = args
    ctx.save_for_backward(None if scale is None else x, scale)
    ctx.bits = bits


@OP.backward
def _backward(ctx: Any, run: Any, grad: Tensor) -> Sequence[Tensor | None]:
    x, scale = ctx.saved_tensors
    grad_x, grad_scale = run(BACKWARD, grad, x, scale, ctx.bits)
    return grad_x, None if scale is None else grad_scale


@OP.tangent
def _tangent(args: tuple[Any, ...], tangents: Sequence[Tensor | None]) -> Tensor:
    return reference.fake_quant_tangent(*args, *tangents[:2])
