"""The reference of `fake_quant`, its backward and its forward-mode derivative."""

import torch
from torch import Tensor

from ..numerics import clip_and_slope, compute_dtype, lsq_gradient_scale, qmax, reciprocal, row_max, scale_from_max


def fake_quant(x: Tensor, scale: Tensor | None, bits: int) -> Tensor:
    if scale is None:
        scale = scale_from_max(row_max(x), bits).unsqueeze(-1)
    limit = qmax(bits)
    values = torch.round(x.to(compute_dtype(x)) * reciprocal(scale)).clamp(-limit, limit)
    return (values * scale).to(x.dtype)


def fake_quant_backward(grad: Tensor, x: Tensor | None, scale: Tensor | None, bits: int) -> tuple[Tensor, Tensor]:
    if x is None or scale is None:  # A row's own maximum clips nothing.
        return grad.clone(memory_format=torch.contiguous_format), grad.new_empty(0)
    inside, slope = clip_and_slope(x, scale, bits)
    product = grad.to(slope.dtype) * slope
    grad_scale = sum_to(product, scale) * lsq_gradient_scale(x.numel(), scale.numel(), bits)
    return grad * inside, grad_scale.to(scale.dtype)


def fake_quant_tangent(
    x: Tensor, scale: Tensor | None, bits: int, of_x: Tensor | None, of_scale: Tensor | None
) -> Tensor:
    """The forward derivative of `fake_quant`, of which `fake_quant_backward` is the transpose, in x's dtype."""
    if scale is None:
        return torch.zeros_like(x) if of_x is None else of_x.to(x.dtype)
    inside, slope = clip_and_slope(x, scale, bits)
    tangent = slope.new_zeros(x.shape)
    if of_x is not None:
        tangent = tangent + of_x * inside
    if of_scale is not None:
        tangent = tangent + slope * of_scale * lsq_gradient_scale(x.numel(), scale.numel(), bits)
    return tangent.to(x.dtype)


def sum_to(values: Tensor, like: Tensor) -> Tensor:
    """Sums `values` over the dimensions along which `like` was broadcast."""
    return values.sum_to_size(like.shape) if like.dim() else values.sum()
