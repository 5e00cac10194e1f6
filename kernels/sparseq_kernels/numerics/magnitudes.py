"""The scores by which weights are pruned.

A unit's score is the sum of its weights' magnitudes in fp32, which ranks equal units as their mean does. The order of
the sum is part of the definition: a block's columns from left to right in each row, then the rows from top to bottom; a
group's weights by index. Every backend sums in this order, so that scores and masks are equal to the bit. NaN ranks
above all numbers, and every NaN equally.
"""

import torch
from torch import Tensor

from ..patterns import Pattern

# The bits of a magnitude as an integer rank it. Those of every NaN become the lowest of them, next to infinity's.
NAN_KEY = 0x7F800001


def unit_scores(weight: Tensor, p: Pattern) -> Tensor:
    """fp32 [units]: the score of each unit of a weight, in their order.

    That of a block is its summed magnitude; that of a group of M is the magnitude that pruning it to N removes.
    """
    return scored_units(weight, p)[0]


def scored_units(weight: Tensor, p: Pattern) -> tuple[Tensor, Tensor | None]:
    """(`unit_scores`; for N:M each group's mask once it is pruned to N, bool [units, M])."""
    return _n_of_m(weight, p) if p.kind == "n:m" else (_blocks(weight, p), None)


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
    """For each group of M: the summed magnitude of its M - N lowest weights, and its mask without them.

    A sparsity below 1 - N/M prunes part of the groups, those with the lowest scores first, so that a schedule can rise
    to N:M.
    """
    groups = weight.detach().abs().float().reshape(-1, p.second)
    order = groups.argsort(dim=1, stable=True)[:, : p.unit]
    partial = torch.ones_like(groups, dtype=torch.bool).scatter_(1, order, False)
    return _in_order(torch.where(partial, 0.0, groups), 1), partial
