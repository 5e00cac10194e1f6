import torch
from torch import Tensor

from ..patterns import Pattern


def magnitude_mask(weights: list[Tensor], sparsity: float, pattern: str) -> list[Tensor]:
    p = Pattern.parse(pattern)
    p.check_sparsity(sparsity)
    for i, weight in enumerate(weights):
        p.check(weight.shape, str(i))
    if not weights:
        return []
    parts = [_n_of_m(w, p) if p.kind == "n:m" else _blocks(w, p) for w in weights]
    scores = torch.cat([score for score, _ in parts])
    share = sparsity / p.max_sparsity
    kept = ~lowest(scores, round(share * scores.numel()))
    masks, start = [], 0
    for weight, (score, partial) in zip(weights, parts, strict=True):
        units = kept[start : start + score.numel()]
        start += score.numel()
        masks.append(_expand(units, partial, weight, p))
    return masks


def lowest(scores: Tensor, count: int) -> Tensor:
    """True for exactly `count` of the scores [n]: the lowest, the lower index first among equals."""
    chosen = torch.zeros_like(scores, dtype=torch.bool)
    if count <= 0:
        return chosen
    limit = scores.kthvalue(min(count, scores.numel())).values
    chosen = scores < limit
    ties = (scores == limit).nonzero().squeeze(1)
    chosen[ties[: count - int(chosen.sum())]] = True
    return chosen


def _blocks(weight: Tensor, p: Pattern) -> tuple[Tensor, None]:
    """The mean magnitude of each block, row by row of blocks."""
    rows, columns = p.block
    grid = weight.detach().abs().float().reshape(weight.shape[0] // rows, rows, weight.shape[1] // columns, columns)
    return grid.mean(dim=(1, 3)).flatten(), None


def _n_of_m(weight: Tensor, p: Pattern) -> tuple[Tensor, Tensor]:
    """For each group of M: what pruning it to N loses (mean magnitude of the M - N lowest), and the group's mask then.

    A sparsity below 1 - N/M prunes whole groups, those first that lose least: so a schedule can rise to N:M.
    """
    groups = weight.detach().abs().float().reshape(-1, p.second)
    order = groups.argsort(dim=1, stable=True)[:, : p.unit]
    partial = torch.ones_like(groups, dtype=torch.bool).scatter_(1, order, False)
    return groups.gather(1, order).mean(dim=1), partial


def _expand(units: Tensor, partial: Tensor | None, weight: Tensor, p: Pattern) -> Tensor:
    if partial is not None:
        return (partial | units.unsqueeze(1)).reshape(weight.shape)
    rows, columns = p.block
    grid = units.reshape(weight.shape[0] // rows, 1, weight.shape[1] // columns, 1)
    # Memory of its own: an op's results may not be views of one another.
    return grid.expand(-1, rows, -1, columns).clone().reshape(weight.shape)
