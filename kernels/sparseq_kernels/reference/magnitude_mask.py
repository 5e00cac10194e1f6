"""A unit's score is the sum of its weights' magnitudes in fp32, which ranks equal units as their mean does. A float's
sum depends on its order, so the order is part of the definition: a block's columns from left to right in each row, then
the rows from top to bottom; a group's by index. Each backend adds so, and then scores and masks are equal to the bit.
NaN ranks above all numbers, and one NaN as another.
"""

import torch
from torch import Tensor

from ..patterns import Pattern

# Of a magnitude's bits as an integer, those of every NaN become this one: the lowest of them, next to infinity's.
NAN_KEY = 0x7F800001


def magnitude_mask(weights: list[Tensor], sparsity: float, pattern: str) -> list[Tensor]:
    p = checked(weights, sparsity, pattern)
    if not weights:
        return []
    parts = [_scored(w, p) for w in weights]
    scores = torch.cat([score for score, _ in parts])
    kept = ~lowest(scores, dropped(scores.numel(), sparsity, p))
    masks, start = [], 0
    for weight, (score, partial) in zip(weights, parts, strict=True):
        units = kept[start : start + score.numel()]
        start += score.numel()
        masks.append(_expand(units, partial, weight, p))
    return masks


def checked(weights: list[Tensor], sparsity: float, pattern: str) -> Pattern:
    """The pattern. Raises InputError unless it divides the weights and can reach the sparsity."""
    p = Pattern.parse(pattern)
    p.check_sparsity(sparsity)
    for i, weight in enumerate(weights):
        p.check(weight.shape, str(i))
    return p


def unit_scores(weight: Tensor, p: Pattern) -> Tensor:
    """fp32 [units]: the score of each unit of a weight, in their order: the summed magnitude of a block; what pruning a
    group of M to N loses."""
    return _scored(weight, p)[0]


def _scored(weight: Tensor, p: Pattern) -> tuple[Tensor, Tensor | None]:
    return _n_of_m(weight, p) if p.kind == "n:m" else (_blocks(weight, p), None)


def dropped(units: int, sparsity: float, p: Pattern) -> int:
    """How many of `units` are pruned (of N:M: pruned to N)."""
    return min(round(sparsity / p.max_sparsity * units), units)


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


def _in_order(x: Tensor, dim: int) -> Tensor:
    """The sum over a dimension, from its first entry to its last."""
    total, *rest = x.unbind(dim)
    for part in rest:
        total = total + part
    return total


def _blocks(weight: Tensor, p: Pattern) -> Tensor:
    """The summed magnitude of each block, row by row of blocks."""
    rows, columns = p.block
    grid = weight.detach().abs().float().reshape(weight.shape[0] // rows, rows, weight.shape[1] // columns, columns)
    return _in_order(_in_order(grid, 3), 1).flatten()


def _n_of_m(weight: Tensor, p: Pattern) -> tuple[Tensor, Tensor]:
    """For each group of M: what pruning it to N loses (the magnitudes of the M - N lowest), and the group's mask then.

    A sparsity below 1 - N/M prunes whole groups, those first that lose least: so a schedule can rise to N:M.
    """
    groups = weight.detach().abs().float().reshape(-1, p.second)
    order = groups.argsort(dim=1, stable=True)[:, : p.unit]
    partial = torch.ones_like(groups, dtype=torch.bool).scatter_(1, order, False)
    return _in_order(torch.where(partial, 0.0, groups), 1), partial


def _expand(units: Tensor, partial: Tensor | None, weight: Tensor, p: Pattern) -> Tensor:
    if partial is not None:
        return (partial | units.unsqueeze(1)).reshape(weight.shape)
    rows, columns = p.block
    grid = units.reshape(weight.shape[0] // rows, 1, weight.shape[1] // columns, 1)
    # Memory of its own: an op's results may not be views of one another.
    return grid.expand(-1, rows, -1, columns).clone().reshape(weight.shape)
