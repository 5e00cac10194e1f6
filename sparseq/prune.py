"""Gradual pruning: the schedule of the sparsity, and the selection of the weights to remove."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sparseq_kernels import InputError, Pattern

from .criterion import FISHER, MAGNITUDE, MAX_LAYER_SPARSITY, PruningSettings, check_fisher
from .nn.masking import MaskedWeight
from .nn.prunable import prunable
from .nn.related import first_names, tied
from .nn.selection import check_share, dividing, scope_for, select_masks
from .nn.sharded import gathered

__all__ = [
    "SHAPES",
    "FisherPruner",
    "MagnitudePruner",
    "Pruner",
    "PruningSettings",
    "SparsitySchedule",
    "dividing",
    "gradual_pruner",
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


class Pruner(ABC):
    """Selects the masks of `layers` again and again as the sparsity of the schedule rises.

    Call `step(n)` after the n-th optimizer step. It selects new masks every `every` steps while the sparsity rises, and
    at the end of the schedule. In between it keeps masked weights at zero. With `regrow` masked weights keep their
    values and receive the dense gradient, so that a later selection can restore them.

    A subclass says by what weights are ranked (`importance`). scope, max_layer_sparsity: as in `select_masks`; "auto"
    depends on the subclass.
    """

    criterion: str

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
        self.scope = scope_for(scope, self.pattern, self.criterion)
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
            masks = select_masks(self.importance(), sparsity, self.pattern, self.scope, self.max_layer_sparsity)
            for name, mask in masks.items():
                self.layers[name].set_mask(mask)
        else:
            for layer in self.layers.values():
                layer.apply_mask()
        return sparsity

    @abstractmethod
    def importance(self) -> dict[str, Tensor]:
        """By layer, a tensor of the weight's shape by whose magnitudes weights are ranked now."""

    def reached(self) -> float:
        """The fraction of the layers' weights that is masked now."""
        return total_sparsity(self.layers)

    def sparsities(self) -> dict[str, float]:
        """The fraction of each layer's weights that is masked now."""
        return layer_sparsities(self.layers)


class MagnitudePruner(Pruner):
    """Removes the weights of lowest magnitude, or the blocks of lowest mean magnitude (Movva et al. 2022)."""

    criterion = MAGNITUDE

    def importance(self) -> dict[str, Tensor]:
        return {name: gathered(layer.weight.detach()) for name, layer in self.layers.items()}


class FisherPruner(Pruner):
    """Removes the weights or blocks whose removal adds the least to the loss, as estimated by w^2 F / 2.

    F is the diagonal of the empirical Fisher information, the mean of the squared gradient (LeCun et al. 1990, "Optimal
    Brain Damage", with the Fisher information in place of the second derivative as in Theis et al. 2018, "Faster gaze
    prediction with dense networks and Fisher pruning"). It is taken from the second moments that Adam keeps of each
    gradient, so that it costs neither time nor memory, and is in every checkpoint of the optimizer. These average over
    steps the squares of a batch's gradient, as it is after clipping, and not of a row's. A block has the sum over its
    weights.

    scope: "auto" and "global", as the estimate is the same quantity in all layers, or "layer".
    optimizer: `torch.optim.Adam`, AdamW or another with `exp_avg_sq` in its state, over these weights.

    Raises InputError for other scopes, whose scores are of magnitudes, and for embeddings: rows of tokens that have not
    been met have no gradient. `step` raises it, naming the layer, for weights without second moments.
    """

    criterion = FISHER

    def __init__(
        self,
        layers: Mapping[str, MaskedWeight],
        schedule: SparsitySchedule,
        optimizer: torch.optim.Optimizer,
        pattern: str | Pattern = "unstructured",
        scope: str = "auto",
        every: int = 10,
        regrow: bool = False,
        max_layer_sparsity: float = MAX_LAYER_SPARSITY,
    ) -> None:
        super().__init__(layers, schedule, pattern, scope, every, regrow, max_layer_sparsity)
        check_fisher(self.scope, embeddings=any(isinstance(layer, nn.Embedding) for layer in layers.values()))
        self.optimizer = optimizer

    def importance(self) -> dict[str, Tensor]:
        return {name: self._of(name, layer.weight) for name, layer in self.layers.items()}

    def _of(self, name: str, weight: Tensor) -> Tensor:
        moments = self.optimizer.state.get(weight, {}).get("exp_avg_sq")
        if moments is None:
            raise InputError(
                f"the optimizer holds no second moments of the gradient of {name!r} (exp_avg_sq): FisherPruner wants "
                "Adam or AdamW, and a gradient of every layer before it selects weights (MagnitudePruner wants none)"
            )
        return gathered(weight.detach()).float().square() * gathered(moments).float()


def gradual_pruner(
    model: nn.Module, settings: PruningSettings, steps: int, optimizer: torch.optim.Optimizer | None = None
) -> Pruner:
    """The pruner of the model's `sparseq.nn.prunable` layers for a training of this many steps; 0 prunes at once.

    optimizer: of the training. Without one, weights are ranked by magnitude whatever the settings say, in each layer if
    they say so and otherwise with that criterion's own scope. The criterion "auto" is fisher only for an optimizer of
    the Adam family, which keeps second moments.

    Raises InputError for settings that contradict each other, and, naming the layer, if the pattern does not fit it.
    """
    criterion = settings.chosen_criterion(
        has_gradients=bool(steps and settings.end and optimizer is not None and "betas" in optimizer.defaults)
    )
    start, end = settings.steps(steps, criterion)
    pattern = Pattern.parse(settings.pattern)
    layers = dividing(prunable(model, embeddings=settings.embeddings), pattern, settings.on_mismatch)
    schedule = SparsitySchedule(settings.sparsity, start, end, settings.schedule)
    options: dict[str, Any] = {
        "pattern": pattern,
        "scope": settings.scope,
        "every": max(1, (end - start) // settings.updates),
        "regrow": settings.regrow,
        "max_layer_sparsity": settings.max_layer_sparsity,
    }
    if criterion != FISHER:
        return MagnitudePruner(layers, schedule, **options)
    if optimizer is None:
        return MagnitudePruner(
            layers, schedule, **{**options, "scope": "layer" if settings.scope == "layer" else "auto"}
        )
    return FisherPruner(layers, schedule, optimizer, **options)


def layer_sparsities(layers: Mapping[str, MaskedWeight]) -> dict[str, float]:
    """The fraction of each layer's weights that its mask removes, by name."""
    counts = {name: layer.weight_counts() for name, layer in layers.items()}
    return {name: 1 - count.kept / count.total if count.total else 0.0 for name, count in counts.items()}


def total_sparsity(layers: Mapping[str, MaskedWeight]) -> float:
    """The fraction of all the layers' weights that masks remove; 0 if there are no masks."""
    counts = [layer.weight_counts() for layer in layers.values()]
    total = sum(count.total for count in counts)
    return 1 - sum(count.kept for count in counts) / total if total else 0.0
