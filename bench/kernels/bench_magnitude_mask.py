"""magnitude_mask: the masks that keep the largest magnitudes of a network's weights together."""

from collections.abc import Mapping

import torch
from torch import Tensor

from bench.check import WrongResultError, require_equal
from bench.clock import Call
from bench.kernels.cases import HIDDEN, OURS, Benchmark, Case, Compare, Trial, hidden_case
from bench.packages import Libraries, reference
from bench.roofline import work
from bench.target import Target
from sparseq.models import SIZES
from sparseq_kernels import Pattern

OP = "magnitude_mask"
WITH_BITS = f"{OURS} with the masks' bits"
SPARSITY = {"unstructured": 0.6, "2:4": 0.5, "4x4": 0.6}
# Sums in another order, of which the lowest kept and the highest dropped may change places.
ROUNDING = 1 + 1e-5


def scores(weight: Tensor, pattern: Pattern) -> Tensor:
    """Mean magnitude of each unit, [n]; for N:M each weight's own."""
    rows, columns = (1, 1) if pattern.kind == "n:m" else pattern.block
    magnitude = weight.abs()
    if rows * columns == 1:
        return magnitude.flatten()
    grid = magnitude.reshape(weight.shape[0] // rows, rows, weight.shape[1] // columns, columns)
    return grid.mean(dim=(1, 3)).flatten()


def by_topk(weights: list[Tensor], sparsity: float, pattern: Pattern, sort: bool = False) -> list[Tensor]:
    """The same selection with torch.topk, as torch.nn.utils.prune takes it, or by sorting everything."""
    if pattern.kind == "n:m":
        groups = [w.abs().reshape(-1, pattern.second) for w in weights]
        lowest = [_lowest(g, pattern.unit, sort) for g in groups]
        pairs = zip(weights, groups, lowest, strict=True)
        return [torch.ones_like(g, dtype=torch.bool).scatter_(1, i, False).reshape(w.shape) for w, g, i in pairs]
    parts = [scores(w, pattern) for w in weights]
    joined = torch.cat(parts)
    kept = torch.ones_like(joined, dtype=torch.bool)
    kept[_lowest(joined, round(sparsity * joined.numel()), sort)] = False
    rows, columns = pattern.block
    masks = []
    for weight, units in zip(weights, kept.split([len(p) for p in parts]), strict=True):
        grid = units.reshape(weight.shape[0] // rows, 1, weight.shape[1] // columns, 1)
        masks.append(grid.expand(-1, rows, -1, columns).reshape(weight.shape))
    return masks


def _lowest(values: Tensor, count: int, sort: bool) -> Tensor:
    """The indices of the lowest along the last dimension."""
    if sort:
        return values.sort(dim=-1, stable=True).indices[..., :count]
    return values.topk(count, dim=-1, largest=False, sorted=False).indices


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
        right = right and bool(weighed[dropped].max() <= weighed[~dropped].min() * ROUNDING)
    if not right:
        raise WrongResultError(f"{name}: not the {sparsity:.0%} of lowest magnitude; nothing is reported of it")


def network(hidden: int, target: Target) -> tuple[int, list[tuple[int, int]]]:
    """(blocks, the weights' shapes) of the deepest network of a width; of one block of it on a CPU; and for the
    interpreter a few rows."""
    blocks = max((SIZES[size].layers for size in HIDDEN.get(hidden, ())), default=1) if target.kind == "cuda" else 1
    shapes = [(hidden, hidden)] * 4 + [(4 * hidden, hidden), (hidden, 4 * hidden)]
    return blocks, [(16, hidden)] * 2 if target.kind == "interpreter" else shapes * blocks


def make_trial(target: Target, libraries: Libraries, hidden: int, pattern: str) -> Trial:
    """Selects over all weights together."""
    sparsity, parsed = SPARSITY[pattern], Pattern.parse(pattern)
    weights = [torch.randn(shape, device=target.device) for shape in network(hidden, target)[1]]
    candidates = {name: library.bind(OP, weights, sparsity, pattern) for name, library in libraries.items()}
    candidates["torch.topk"] = lambda: by_topk(weights, sparsity, parsed)
    if target.gpu:
        from sparseq_kernels.triton.magnitude_mask import magnitude_mask_bits

        candidates[WITH_BITS] = lambda: magnitude_mask_bits(weights, sparsity, pattern)[0]
        candidates["torch.sort"] = lambda: by_topk(weights, sparsity, parsed, sort=True)

    def check(present: Mapping[str, Call]) -> None:
        expected = reference(OP, weights, sparsity, pattern)
        for name in present:
            found = candidates[name]()
            require_selection(name, weights, found, sparsity, parsed)
            if name.startswith(OURS):
                for mask, wanted in zip(found, expected, strict=True):
                    require_equal(name, mask, wanted)

    return Trial(dict(candidates), check)


def build(target: Target, hidden: int, pattern: str) -> Case:
    blocks, shapes = network(hidden, target)
    layer = f"{blocks} blocks, {hidden}" if blocks > 1 else f"one block, {hidden}"
    values = sum(outputs * inputs for outputs, inputs in shapes)
    least = work([(values, torch.float32), (values, torch.bool)])
    described = hidden_case(hidden, layer, "select", pattern=pattern)
    return Case(described, lambda libraries: make_trial(target, libraries, hidden, pattern), least)


BENCHMARK = Benchmark(
    OP,
    "the masks of a network's weights, by magnitude",
    ("K",),
    HIDDEN,
    build,
    variants=lambda target: [{"pattern": pattern} for pattern in SPARSITY],
    takes_dtype=False,
)


def test_magnitude_mask(compare: Compare, case: Case) -> None:
    compare(case)
