"""Which weights a mask keeps, over one layer or many."""

from collections.abc import Mapping

import torch
from torch import Tensor

from sparseq_kernels import InputError, Pattern

from .kin import first_names
from .masking import MaskedWeight

SCOPES = ("global", "layer")
ON_MISMATCH = ("error", "skip")


def select_masks(
    weights: Mapping[str, Tensor], sparsity: float, pattern: str | Pattern, scope: str = "global"
) -> dict[str, Tensor]:
    """bool masks that remove the weights of lowest magnitude: exactly round(sparsity x units) units of the pattern,
    over all the weights together (`scope="global"`) or in each ("layer"). Units are weights, or blocks scored by their
    mean magnitude; the lower index goes first among equals. A weight that has several names counts once.

    Raises InputError for a pattern that does not divide a weight (naming it) or cannot reach the sparsity.
    """
    pattern = Pattern.parse(pattern)
    pattern.check_sparsity(sparsity)
    choice("scope", scope, SCOPES)
    for name, weight in weights.items():
        pattern.check(weight.shape, name)
    first = first_names(weights)
    once = list(dict.fromkeys(first.values()))
    tensors = [weights[name].detach() for name in once]
    if scope == "global":
        masks = torch.ops.sparseq.magnitude_mask(tensors, sparsity, str(pattern)) if tensors else []
    else:
        masks = [torch.ops.sparseq.magnitude_mask([w], sparsity, str(pattern))[0] for w in tensors]
    found = dict(zip(once, masks, strict=True))
    return {name: found[first[name]] for name in weights}


def dividing(layers: Mapping[str, MaskedWeight], pattern: Pattern, on_mismatch: str) -> dict[str, MaskedWeight]:
    """The layers that the pattern divides; one that it does not raises InputError, unless on_mismatch is "skip"."""
    choice("on_mismatch", on_mismatch, ON_MISMATCH)
    if on_mismatch == "skip":
        return {name: layer for name, layer in layers.items() if pattern.divides(layer.weight.shape)}
    for name, layer in layers.items():
        pattern.check(layer.weight.shape, name)
    return dict(layers)


def choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raises InputError unless `value` is one of `choices`."""
    if value not in choices:
        raise InputError(f"{name} is {value!r}: it must be one of {', '.join(map(repr, choices))}")
