"""Magnitude pruning: the schedule of the sparsity, and the selection of the weights to remove."""

from collections.abc import Mapping
from dataclasses import dataclass

from sparseq_kernels import InputError, Pattern

from .nn.masking import MaskedWeight
from .nn.related import first_names, tied
from .nn.selection import MAX_LAYER_SPARSITY, check_share, dividing, scope_for, select_masks

__all__ = [
    "SHAPES",
    "MagnitudePruner",
    "SparsitySchedule",
    "dividing",
    "layer_sparsities",
    "scope_for",
    "select_masks",
    "total_sparsity",
]
SHAPES = ("linear", "cubic")


@dataclass(frozen=True)
class SparsitySchedule:
    """The sparsity at each step: 0 for `warmup_steps`, then rising to `final` at `end_step`.

    shape: "linear" (Movva et al. 2022), or "cubic", final x (1 - (1 - t)^3), which rises fast at first (Zhu and Gupta
    2017).
    """

    final: float
    warmup_steps: int
    end_step: int
    shape: str = "linear"

    def __post_init__(self) -> None:
        if self.shape not in SHAPES:
            raise InputError(f"sparsity schedule {self.shape!r} is unknown: use {' or '.join(map(repr, SHAPES))}")
        if not 0 <= self.warmup_steps <= self.end_step:
            raise InputError(
                f"the sparsity schedule must warm up before it ends, not for {self.warmup_steps} steps "
                f"of {self.end_step}"
            )

    def at(self, step: int) -> float:
        """The target sparsity after `step` optimizer steps."""
        if step >= self.end_step:
            return self.final
        if step <= self.warmup_steps:
            return 0.0
        t = (step - self.warmup_steps) / (self.end_step - self.warmup_steps)
        return self.final * (t if self.shape == "linear" else 1 - (1 - t) ** 3)


class MagnitudePruner:
    """Selects the masks of `layers` again and again as the sparsity of the schedule rises.

    Call `step(n)` after the n-th optimizer step. It selects new masks every `every` steps while the sparsity rises, and
    at the end of the schedule. In between it keeps masked weights at zero. With `regrow` masked weights keep their
    values and receive the dense gradient, so that a later selection can restore them.

    scope, max_layer_sparsity: as in `select_masks`.
    """

    def __init__(
        self,
        layers: Mapping[str, MaskedWeight],
        schedule: SparsitySchedule,
        pattern: str | Pattern = "unstructured",
        scope: str = "auto",
        every: int = 10,
        regrow: bool = False,
        max_layer_sparsity: float = MAX_LAYER_SPARSITY,
    ) -> None:
        # A weight that layers share is pruned once, and they share its mask.
        once = set(first_names({name: layer.weight for name, layer in layers.items()}).values())
        self.layers = {name: layer for name, layer in layers.items() if name in once}
        self.schedule = schedule
        self.pattern = Pattern.parse(pattern)
        self.scope = scope_for(scope, self.pattern)
        check_share("max_layer_sparsity", max_layer_sparsity)
        self.max_layer_sparsity = max_layer_sparsity
        self.every = max(1, every)
        if not self.layers:
            raise InputError("there is nothing to prune: no layer of the model is prunable with this pattern")
        self.pattern.check_sparsity(schedule.final)
        for name, layer in self.layers.items():
            self.pattern.check(layer.weight.shape, name)
            for shared in tied(layer):
                shared.regrow = regrow

    def step(self, step: int) -> float:
        """Updates the masks after `step` optimizer steps; returns the target sparsity at that step."""
        sparsity, end = self.schedule.at(step), self.schedule.end_step
        due = step == end or (self.schedule.warmup_steps < step < end and step % self.every == 0)
        if due or (step > end and any(layer.mask is None for layer in self.layers.values())):
            weights = {name: layer.weight for name, layer in self.layers.items()}
            masks = select_masks(weights, sparsity, self.pattern, self.scope, self.max_layer_sparsity)
            for name, mask in masks.items():
                self.layers[name].set_mask(mask)
        else:
            for layer in self.layers.values():
                layer.apply_mask()
        return sparsity

    def reached(self) -> float:
        """The fraction of the layers' weights that is masked now."""
        return total_sparsity(self.layers)

    def sparsities(self) -> dict[str, float]:
        """The fraction of each layer's weights that is masked now."""
        return layer_sparsities(self.layers)


def layer_sparsities(layers: Mapping[str, MaskedWeight]) -> dict[str, float]:
    """The fraction of each layer's weights that its mask removes, by name."""
    counts = {name: layer.weight_counts() for name, layer in layers.items()}
    return {name: 1 - count.kept / count.total if count.total else 0.0 for name, count in counts.items()}


def total_sparsity(layers: Mapping[str, MaskedWeight]) -> float:
    """The fraction of all the layers' weights that masks remove; 0 if there are no masks."""
    counts = [layer.weight_counts() for layer in layers.values()]
    total = sum(count.total for count in counts)
    return 1 - sum(count.kept for count in counts) / total if total else 0.0
