"""Selection of the weights that a mask keeps, over one layer or many."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from sparseq_kernels import InputError, Pattern
from sparseq_kernels.torch_internals import has_values

from ..criterion import CRITERIA, MAGNITUDE, MAX_LAYER_SPARSITY, default_scope
from .masking import MaskedWeight
from .ranking import SCORES, dropped_units, most_dropped, unit_count
from .related import first_names

SCOPES = ("auto", "global", "layer", "lamp", "normalized")
ON_MISMATCH = ("error", "skip")


def scope_for(scope: str, pattern: str | Pattern, criterion: str = MAGNITUDE) -> str:
    """The scope that `scope` stands for: "auto" is the `default_scope` of the criterion and the pattern."""
    choice("scope", scope, SCOPES)
    choice("criterion", criterion, CRITERIA)
    return default_scope(criterion, Pattern.parse(pattern)) if scope == "auto" else scope


def select_masks(
    weights: Mapping[str, Tensor],
    sparsity: float,
    pattern: str | Pattern,
    scope: str = "auto",
    max_layer_sparsity: float = MAX_LAYER_SPARSITY,
) -> dict[str, Tensor]:
    """bool masks that remove the least important units of the pattern: exactly round(sparsity x units) of them.

    weights: by name; or in their place other tensors of their shapes by whose magnitudes they are to be ranked
    (`sparseq.prune.Pruner.importance`).

    The number is reached over all weights together or in each weight, depending on the scope. Units are weights, or
    blocks scored by their mean magnitude; among equals the lower index is removed first. A weight with several names
    counts once.

    scope: "global" ranks the units of all weights by magnitude; "lamp" by magnitude relative to the rest of their layer
    (see `ranking.lamp_scores`); "normalized" by magnitude divided by the root mean square of their layer's (see
    `ranking.normalized_scores`); "layer", often called uniform, removes the same share of each weight; "auto" is the
    choice of `scope_for`. N:M at its own sparsity removes the same share of every weight in every scope.

    max_layer_sparsity: the largest share of one weight's units that scopes other than "layer" remove, in [0, 1];
    `sparsity` itself if that is greater. A weight keeps at least one unit: always with "layer", and with the others
    unless the total cannot be reached otherwise.

    Raises InputError for a pattern that does not divide a weight (naming it) or cannot reach the sparsity.
    """
    pattern = Pattern.parse(pattern)
    pattern.check_sparsity(sparsity)
    scope = scope_for(scope, pattern)
    check_share("max_layer_sparsity", max_layer_sparsity)
    for name, weight in weights.items():
        pattern.check(weight.shape, name)
    first = first_names(weights)
    once = list(dict.fromkeys(first.values()))
    tensors = [weights[name].detach() for name in once]
    masks = _select(tensors, sparsity, pattern, scope, max_layer_sparsity)
    found = dict(zip(once, masks, strict=True))
    return {name: found[first[name]] for name in weights}


def _select(
    weights: Sequence[Tensor], sparsity: float, pattern: Pattern, scope: str, max_layer_sparsity: float
) -> list[Tensor]:
    if not all(has_values(weight) for weight in weights):  # and the masks will have none either
        return list(torch.ops.sparseq.magnitude_mask(list(weights), sparsity, str(pattern)))
    units = [unit_count(weight, pattern) for weight in weights]
    if scope == "layer":
        most = [n if pattern.kind == "n:m" else max(0, n - 1) for n in units]
        counts = [min(pattern.dropped(n, sparsity), m) for n, m in zip(units, most, strict=True)]
    elif scope in SCORES:
        counts = dropped_units(weights, sparsity, pattern, scope, max_layer_sparsity)
    else:
        masks: list[Tensor] = torch.ops.sparseq.magnitude_mask(list(weights), sparsity, str(pattern)) if weights else []
        if pattern.kind == "n:m" or not _beyond(masks, units, sparsity, pattern, max_layer_sparsity):
            return masks
        counts = dropped_units(weights, sparsity, pattern, scope, max_layer_sparsity)
    return [_without(weight, count, n, pattern) for weight, count, n in zip(weights, counts, units, strict=True)]


def _beyond(
    masks: Sequence[Tensor], units: Sequence[int], sparsity: float, pattern: Pattern, max_layer_sparsity: float
) -> bool:
    """Whether a mask removes more units than a layer may lose."""
    size = pattern.first * pattern.second
    kept = torch.stack([mask.sum() for mask in masks]).tolist() if masks else []
    pairs = zip(kept, units, strict=True)
    return any(n - k // size > most_dropped(n, sparsity, max_layer_sparsity) for k, n in pairs)


def _without(weight: Tensor, count: int, units: int, pattern: Pattern) -> Tensor:
    """The mask that removes the weight's `count` lowest units."""
    if count and count == units and pattern.kind != "n:m":
        return torch.zeros(weight.shape, dtype=torch.bool, device=weight.device)
    share = count / units * pattern.max_sparsity if units else 0.0
    mask: Tensor = torch.ops.sparseq.magnitude_mask([weight], share, str(pattern))[0]
    return mask


def dividing(layers: Mapping[str, MaskedWeight], pattern: Pattern, on_mismatch: str) -> dict[str, MaskedWeight]:
    """The layers that the pattern divides. Raises InputError for others, unless on_mismatch is "skip"."""
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


def check_share(name: str, value: float) -> None:
    """Raises InputError unless `value` is a number in [0, 1]."""
    if isinstance(value, bool | str) or not 0 <= value <= 1:
        raise InputError(f"{name} is {value!r}: it must be a share from 0 to 1")
