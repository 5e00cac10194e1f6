"""The reference of `magnitude_mask`."""

import torch
from torch import Tensor

from ..numerics import NAN_KEY, scored_units
from ..patterns import Pattern


def magnitude_mask(weights: list[Tensor], sparsity: float, pattern: str) -> list[Tensor]:
    p = Pattern.parse(pattern)
    if not weights:
        return []
    parts = [scored_units(w, p) for w in weights]
    scores = torch.cat([score for score, _ in parts])
    kept = ~lowest(scores, p.dropped(scores.numel(), sparsity))
    masks, start = [], 0
    for weight, (score, partial) in zip(weights, parts, strict=True):
        units = kept[start : start + score.numel()]
        start += score.numel()
        masks.append(_expand(units, partial, weight, p))
    return masks


def lowest(scores: Tensor, count: int) -> Tensor:
    """True for exactly `count` of the magnitudes [n]: the lowest, the lower index first among equals."""
    chosen = torch.zeros_like(scores, dtype=torch.bool)
    if count <= 0:
        return chosen
    keys = (scores.view(torch.int32) & 0x7FFFFFFF).clamp_max(NAN_KEY)
    limit = keys.kthvalue(min(count, keys.numel())).values
    chosen = keys < limit
    ties = (keys == limit).nonzero().squeeze(1)
    chosen[ties[: count - int(chosen.sum())]] = True
    return chosen


def _expand(units: Tensor, partial: Tensor | None, weight: Tensor, p: Pattern) -> Tensor:
    if partial is not None:
        return (partial | units.unsqueeze(1)).reshape(weight.shape)
    rows, columns = p.block
    grid = units.reshape(weight.shape[0] // rows, 1, weight.shape[1] // columns, 1)
    # Memory of its own: the results of an op must not be views of one another.
    return grid.expand(-1, rows, -1, columns).clone().reshape(weight.shape)
