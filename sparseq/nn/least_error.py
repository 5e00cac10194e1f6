"""Weight scales with the least squared error of rounding, for weights that no longer change."""

import torch
from torch import Tensor, nn

from sparseq_kernels import InputError
from sparseq_kernels.numerics import qmax, row_max, scale_from_max

from .linear import QuantSparseLinear

# Candidates are multiples of the scale from a row's largest weight, in steps of 4.4 %: from a sixteenth, below which a
# layer uses no learned scale (`linear.MOST_CLIPPED`), to 1.24, as the integers of short rows may fit better above 1.
_CANDIDATES = tuple(2 ** (i / 16) for i in range(-64, 6))
# Each turn finds the best scale for the integers, then the integers for that scale.
_TURNS = 4
# Weights at a time, so that the passes over them stay in a processor's cache.
_CHUNK = 2**16


@torch.no_grad()
def fit_weight_scales(model: nn.Module) -> nn.Module:
    """Sets the learned weight scales of a model to those with the least squared error, and returns the model.

    For a model that was converted with `scale="lsq"` and is not trained further: `least_error_scale` of each layer's
    weight as it is now, with its mask. At 4 bits this clips the few largest weights of a row for finer steps of all
    others. Training would move the scales on from there, and `refresh` sets them to those of the largest weights again.

    Raises InputError if no layer of the model has learned scales.
    """
    layers = [m for m in model.modules() if isinstance(m, QuantSparseLinear) and m.step_size is not None]
    if not layers:
        raise InputError('the model has no learned weight scales to fit: convert it with scale="lsq"')
    # Layers that share a weight share its scales.
    for layer in {id(layer.step_size): layer for layer in layers}.values():
        assert layer.step_size is not None
        layer.step_size.copy_(least_error_scale(layer.masked_weight().detach(), layer.bits or 8))
    return model


@torch.no_grad()
def least_error_scale(weight: Tensor, bits: int) -> Tensor:
    """The scale s of each row w with the least |w - s q|^2, where q = clamp(round(w / s), -qmax, qmax).

    Args:
        weight: [rows, columns], floating.
        bits: 2 to 16.

    Returns:
        [rows], fp32 (fp64 for fp64): the best of 70 multiples of max|w| / qmax from 1/16 to 1.24, then improved by
        turns: the integers q of a scale, and the best scale of these, w.q / q.q (as in Lloyd's algorithm; Lloyd 1982).
        The error is never above that of max|w| / qmax. A row of zeros has the scale 1.
    """
    top = scale_from_max(row_max(weight), bits)
    step = max(1, _CHUNK // max(1, weight.shape[1]))
    found = [_least(rows, scale, bits) for rows, scale in zip(weight.split(step), top.split(step), strict=True)]
    return torch.cat(found) if found else top


def _least(weight: Tensor, top: Tensor, bits: int) -> Tensor:
    """`least_error_scale` of a few rows; top: from their largest weights."""
    # In fp64: the errors of neighbouring scales differ by less than sums in fp32 do.
    relative = weight.double() / top.double().unsqueeze(-1)
    # With the best scale for its integers, w.q / q.q, a row's error is |w|^2 - (w.q)^2 / q.q.
    gain, best = torch.full_like(top, -1.0, dtype=torch.float64), torch.ones_like(top, dtype=torch.float64)
    for candidate in _CANDIDATES:
        gain, best = _better(relative, torch.full_like(best, candidate), bits, gain, best)
    for _ in range(_TURNS):
        gain, best = _better(relative, best, bits, gain, best)
    return (top.double() * best).to(top.dtype)


def _better(relative: Tensor, scale: Tensor, bits: int, gain: Tensor, best: Tensor) -> tuple[Tensor, Tensor]:
    """(gain, best) of the integers that `scale` gives where they gain more, with their best scale; else as given."""
    limit = qmax(bits)
    q = (relative * (1 / scale).unsqueeze(-1)).round_().clamp_(-limit, limit)
    along, square = (relative * q).sum(-1), q.square().sum(-1).clamp_min(1)
    found = along.square() / square
    more = found > gain
    return torch.where(more, found, gain), torch.where(more & (along > 0), along / square, best)
