"""`magnitude_mask`: the masks that keep the largest weights of several matrices together."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import validation as valid
from ..dispatch import Op
from ..patterns import Pattern
from ..reference.magnitude_mask import magnitude_mask as formula

OP = Op("magnitude_mask", "(Tensor[] weights, float sparsity, str pattern='unstructured') -> Tensor[]", formula)


def magnitude_mask(weights: Sequence[Tensor], sparsity: float, pattern: str = "unstructured") -> list[Tensor]:
    """Boolean masks that keep the largest magnitudes of all weights together (True is kept).

    Exactly round(sparsity * units) units are dropped over all weights. A unit is a weight, or a block, scored by its
    mean magnitude; among equals the lower index is dropped first. NaN ranks above all numbers.

    Args:
        weights: matrices [N, K], floating, on one device.
        sparsity: the share of weights that is dropped, at least 0 and below 1.
        pattern: "unstructured", "N:M" or "RxC" (see `Pattern`).

    Returns:
        A bool mask of each weight's shape. Constants to autograd.

    Raises:
        InputError: for other dtypes, a pattern that does not divide a weight, or a sparsity that it cannot reach.
    """
    masks: list[Tensor] = OP(list(weights), sparsity, pattern)
    return masks


@OP.validate
def _validate(op: str, weights: Sequence[Tensor], sparsity: float, pattern: str) -> None:
    for weight in weights:
        valid.floating(op, "every weight", weight)
    parsed = Pattern.parse(pattern)
    parsed.check_sparsity(sparsity)
    for i, weight in enumerate(weights):
        parsed.check(weight.shape, str(i))


@OP.fake
def _fake(weights: list[Tensor], sparsity: float, pattern: str) -> list[Tensor]:
    return [torch.empty(w.shape, dtype=torch.bool, device=w.device) for w in weights]
