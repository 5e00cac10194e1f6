from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from bench.check import WrongResultError
from bench.clock import Call
from bench.kernels.cases import OURS, Trial, hidden_case
from bench.kernels.conftest import Compare
from bench.target import Target
from sparseq_kernels import Pattern

OP = torch.ops.sparseq.magnitude_mask
SPARSITY = {"unstructured": 0.6, "2:4": 0.5, "4x4": 0.6}


def scores(weight: Tensor, pattern: Pattern) -> Tensor:
    """Mean magnitude of each unit, [n]; for N:M each weight's own."""
    rows, columns = (1, 1) if pattern.kind == "n:m" else pattern.block
    grid = weight.abs().reshape(weight.shape[0] // rows, rows, weight.shape[1] // columns, columns)
    return grid.mean(dim=(1, 3)).flatten()


def by_topk(weights: list[Tensor], sparsity: float, pattern: Pattern) -> list[Tensor]:
    """The same selection with torch.topk, as torch.nn.utils.prune takes it."""
    if pattern.kind == "n:m":
        groups = [w.abs().reshape(-1, pattern.second) for w in weights]
        lowest = [g.topk(pattern.unit, dim=1, largest=False).indices for g in groups]
        pairs = zip(weights, groups, lowest, strict=True)
        return [torch.ones_like(g, dtype=torch.bool).scatter_(1, i, False).reshape(w.shape) for w, g, i in pairs]
    parts = [scores(w, pattern) for w in weights]
    joined = torch.cat(parts)
    kept = torch.ones_like(joined, dtype=torch.bool)
    kept[joined.topk(round(sparsity * joined.numel()), largest=False).indices] = False
    rows, columns = pattern.block
    masks = []
    for weight, units in zip(weights, kept.split([len(p) for p in parts]), strict=True):
        grid = units.reshape(weight.shape[0] // rows, 1, weight.shape[1] // columns, 1)
        masks.append(grid.expand(-1, rows, -1, columns).reshape(weight.shape))
    return masks


def require_selection(name: str, weights: list[Tensor], masks: list[Tensor], sparsity: float, pattern: Pattern) -> None:
    """Raises WrongResultError unless as many units are dropped as asked, whole, and none outweighs a kept one."""
    if pattern.kind == "n:m":
        kept = [mask.reshape(-1, pattern.second) for mask in masks]
        groups = [w.abs().reshape(-1, pattern.second) for w in weights]
        right = all(bool(k.sum(1).eq(pattern.first).all()) for k in kept) and all(
            bool((g.masked_fill(~k, torch.inf).amin(1) >= g.masked_fill(k, 0).amax(1)).all())
            for g, k in zip(groups, kept, strict=True)
        )
    else:
        shares = torch.cat([scores(mask.float(), pattern) for mask in masks])
        weighed = torch.cat([scores(weight, pattern) for weight in weights])
        dropped = shares == 0
        right = bool((dropped | (shares == 1)).all()) and int(dropped.sum()) == round(sparsity * len(weighed))
        right = right and bool(weighed[dropped].max() <= weighed[~dropped].min())
    if not right:
        raise WrongResultError(f"{name}: not the {sparsity:.0%} of lowest magnitude; nothing is reported of it")


def make_trial(target: Target, hidden: int, pattern: str) -> Trial:
    """Selects over the six weights of one encoder block."""
    wide, sparsity, parsed = 4 * hidden, SPARSITY[pattern], Pattern.parse(pattern)
    shapes = [(hidden, hidden)] * 4 + [(wide, hidden), (hidden, wide)]
    weights = [torch.randn(shape, device=target.device) for shape in shapes]
    candidates = {
        OURS: lambda: OP(weights, sparsity, pattern),
        "torch.topk": lambda: by_topk(weights, sparsity, parsed),
    }

    def check(present: Mapping[str, Call]) -> None:
        for name in present:
            require_selection(name, weights, candidates[name](), sparsity, parsed)

    return Trial(dict(candidates), check)


@pytest.mark.parametrize("pattern", list(SPARSITY))
def test_magnitude_mask(compare: Compare, target: Target, hidden: int, pattern: str) -> None:
    case = hidden_case(hidden, f"one block, {hidden}", "select", pattern=pattern)
    compare(case, lambda: make_trial(target, hidden, pattern))
