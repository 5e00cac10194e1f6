"""How many units each of several weights loses if they are ranked together."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sparseq_kernels import Pattern
from sparseq_kernels.numerics import unit_scores


def unit_count(weight: Tensor, pattern: Pattern) -> int:
    """The number of units of the pattern in a weight: weights, blocks, or groups of M."""
    rows, columns = pattern.block
    return weight.numel() // (rows * columns)


def most_dropped(units: int, sparsity: float, max_layer_sparsity: float) -> int:
    """How many of a layer's units may be removed: that share, or the sparsity if it is greater; never the last one."""
    share = max(max_layer_sparsity, sparsity)
    return max(0, min(math.floor(share * units + 1e-9), units - 1))


def lamp_scores(magnitudes: Tensor) -> Tensor:
    """The layer-adaptive scores of a layer's magnitudes, fp64 [n]; the magnitudes are fp64 [n] in ascending order.

    The score of a unit is its squared magnitude divided by the sum of the squares of all units of the layer that do not
    precede it in that order (Lee et al. 2021, "Layer-adaptive Sparsity for the Magnitude-based Pruning", ICLR, equation
    4). The largest unit has score 1. The score is 0 if all those units are 0, and 1 if it is not a number, next to NaN
    or infinity.
    """
    squares = magnitudes.square()
    rest = squares.flip(0).cumsum(0).flip(0)
    return torch.where(rest == 0, 0.0, squares / rest).nan_to_num(nan=1.0)


def normalized_scores(magnitudes: Tensor) -> Tensor:
    """A layer's magnitudes divided by their root mean square, fp64 [n]; the magnitudes are fp64 [n] in ascending order.

    Molchanov et al. 2017, "Pruning Convolutional Neural Networks for Resource Efficient Inference", ICLR, normalize the
    scores of each layer by the root of the sum of their squares. The mean in its place does not depend on how many
    units a layer has. The score is 0 if all units are 0, and infinity if it is not a number.
    """
    if not len(magnitudes):
        return magnitudes
    mean = magnitudes.square().cumsum(0)[-1] / len(magnitudes)
    return torch.where(mean == 0, 0.0, magnitudes / mean.sqrt()).nan_to_num(nan=math.inf, posinf=math.inf)


# What units of all layers are ranked by together, of a layer's magnitudes; by these themselves otherwise.
SCORES = {"lamp": lamp_scores, "normalized": normalized_scores}


def dropped_units(
    weights: Sequence[Tensor], sparsity: float, pattern: Pattern, scope: str, max_layer_sparsity: float
) -> list[int]:
    """How many units of each weight are among the round(sparsity x units) lowest of all.

    Units are ranked by magnitude ("global"), by their layer-adaptive scores ("lamp") or by magnitude relative to their
    layer's ("normalized"); among equals, those of the earlier weight are removed first. The largest units of a layer,
    those beyond `most_dropped`, are removed after those of all layers, and the last unit of each layer after them.
    """
    # A cumulative sum depends on its order, which a GPU does not fix: on the CPU every process gets the same result.
    keys = [unit_scores(w, pattern).nan_to_num(nan=math.inf).sort().values.cpu().double() for w in weights]
    if scope in SCORES:
        keys = [SCORES[scope](key) for key in keys]
    count = pattern.dropped(sum(map(len, keys)), sparsity)
    if pattern.kind == "n:m":  # a group keeps N of its weights
        return _lowest(keys, count)
    ends = [most_dropped(len(key), sparsity, max_layer_sparsity) for key in keys]
    found = [0] * len(keys)
    for tier in (
        [key[:end] for key, end in zip(keys, ends, strict=True)],
        [key[end:-1] for key, end in zip(keys, ends, strict=True)],
        [key[max(end, len(key) - 1) :] for key, end in zip(keys, ends, strict=True)],
    ):
        going = min(count, sum(map(len, tier)))
        count -= going
        found = [before + more for before, more in zip(found, _lowest(tier, going), strict=True)]
    return found


def _lowest(keys: Sequence[Tensor], count: int) -> list[int]:
    """How many of each list's keys, which are in ascending order, are among the `count` lowest of all lists."""
    if count == 0:
        return [0] * len(keys)
    limit = torch.cat(list(keys)).kthvalue(count).values
    found = [int(torch.searchsorted(key, limit)) for key in keys]
    left = count - sum(found)
    for i, key in enumerate(keys):
        equal = int(torch.searchsorted(key, limit, right=True)) - found[i]
        found[i] += min(equal, left)
        left -= min(equal, left)
    return found
