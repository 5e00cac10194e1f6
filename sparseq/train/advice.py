"""Choices that a run makes from the model, and its messages about these and about pruning."""

from collections.abc import Mapping

import numpy as np
from torch import nn

from sparseq.tasks import Data, compute_metrics, merge_splits, score
from sparseq.terminal import counted

from .recipe import Recipe

# Largest hidden size -> peak learning rate. Google's miniatures were tuned over 3e-4 to 3e-5, smaller models with
# higher rates (Turc et al. 2019); the entry for 512 was measured at 384 (docs/results/benchmarks.md).
RATES = {256: 3e-4, 512: 1e-4, 768: 5e-5}
WIDEST_RATE = 3e-5
# Up to about this many steps more training helps models in 4x4 blocks: of 1,200 rows, 8 epochs (304 steps) beside 4
# (docs/results/benchmarks.md), and 12 (456; docs/results/findings.md).
FEW_STEPS = 340
# Layers with less than a twentieth of their weights left are listed at the end of a run.
NEARLY_REMOVED = 0.95


def hidden_size(model: nn.Module) -> int | None:
    """The width of the model's layers; None if its configuration does not give it."""
    found = getattr(getattr(model, "config", None), "hidden_size", None)
    return found if isinstance(found, int) else None


def peak_rate(recipe: Recipe, model: nn.Module) -> float:
    """The recipe's peak learning rate; if that is "auto", the rate in RATES for the model's width (768 if unknown)."""
    if isinstance(recipe.lr, float):
        return recipe.lr
    width = hidden_size(model) or 768
    return next((rate for widest, rate in RATES.items() if width <= widest), WIDEST_RATE)


def described_rate(recipe: Recipe, model: nn.Module) -> str:
    """The peak learning rate, and how it was chosen."""
    rate = f"{peak_rate(recipe, model):g}"
    return rate if recipe.lr != "auto" else f"{rate} (by the hidden size {hidden_size(model) or 'unknown'}; or --lr)"


def described_pruning(recipe: Recipe, steps: int) -> list[str]:
    """When pruning takes place in a training of this many steps, and whether the steps are few."""
    if not steps:
        return ["at once, with no training to recover in"]
    start, end = recipe.pruning_steps(steps)
    described = [f"from step {start:,} to {end:,} of {steps:,}, which leaves {steps - end:,} to recover in"]
    if steps < FEW_STEPS:
        described.append(f"fewer than {FEW_STEPS} steps: more --epochs are likely to help a pruned model")
    return described


def described_evaluations(recipe: Recipe) -> list[str]:
    """When the model is scored during training, on what, and whether the best weights are kept."""
    if not recipe.eval_every:
        return []
    kept = "; the weights of the best evaluation are kept" if recipe.keep == "best" else ""
    rows = "held-out" if recipe.held_out_rows else "validation"
    return [f"scored every {counted(recipe.eval_every, 'step')} on the {rows} rows{kept}"]


def weak_teacher(data: Data, score_of_teacher: float) -> list[str]:
    """A sentence if the teacher's score is not above that of one constant answer for all validation rows.

    The constant answer is the most frequent class, or any number. A weak teacher may have its labels in another order,
    or be trained on another task.
    """
    task, constant = data.task, {}
    for split, rows in data.validations.items():
        labels = np.asarray(rows["label"][:])
        answer = 0.0 if task.is_regression else float(np.bincount(labels.astype(int)).argmax())
        constant[split] = compute_metrics(task, np.full(len(labels), answer), labels)
    reached = score(task, merge_splits(task, constant))
    if score_of_teacher > reached or reached == 1:  # if all rows have the same label, any good model gives this answer
        return []
    return [f"one answer for all rows would score {reached:.4f}: is it a teacher of this task?"]


def nearly_removed(sparsities: Mapping[str, float]) -> dict[str, float]:
    """The layers of which more than NEARLY_REMOVED is masked."""
    return {name: sparsity for name, sparsity in sparsities.items() if sparsity > NEARLY_REMOVED}


def at_end(layers_past_95: Mapping[str, float]) -> list[str]:
    """Lines for the end of a run, about layers that pruning has nearly removed."""
    if not layers_past_95:
        return []
    named = ", ".join(f"{name} ({sparsity:.1%})" for name, sparsity in layers_past_95.items())
    return [
        f"layers of which more than {NEARLY_REMOVED:.0%} is removed: {named}: --scope lamp or layer, or a lower "
        "--max-layer-sparsity, spreads the pruning"
    ]
