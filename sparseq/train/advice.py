"""What a run chooses by the model, and what it says of that and of its pruning."""

from collections.abc import Mapping

import numpy as np
from torch import nn

from sparseq.tasks import Data, compute_metrics, merge_splits, score

from .recipe import Recipe

# Hidden size up to which -> peak learning rate. Google's miniatures were tuned over 3e-4 to 3e-5, the smaller model the
# higher rate (Turc et al. 2019); the entry of 512 was measured at 384 (docs/benchmarks.md, bench.studies.methods).
RATES = {256: 3e-4, 512: 1e-4, 768: 5e-5}
WIDEST_RATE = 3e-5
# Up to so many steps (9 epochs of 1,200 rows) more training still helped models in 4x4 blocks; at 80 % twice the steps
# of 3 epochs gave 8 points, three times gave 10 (docs/benchmarks.md, bench.studies.methods --study epochs).
FEW_STEPS = 340
# A layer of which less than a twentieth is left is named at the end of a run.
NEARLY_REMOVED = 0.95


def hidden_size(model: nn.Module) -> int | None:
    """The width of the model's layers, None where its configuration does not say."""
    found = getattr(getattr(model, "config", None), "hidden_size", None)
    return found if isinstance(found, int) else None


def peak_rate(recipe: Recipe, model: nn.Module) -> float:
    """The recipe's peak learning rate; where it is "auto", that of RATES for the model's width (768 if unknown)."""
    if isinstance(recipe.lr, float):
        return recipe.lr
    width = hidden_size(model) or 768
    return next((rate for widest, rate in RATES.items() if width <= widest), WIDEST_RATE)


def described_rate(recipe: Recipe, model: nn.Module) -> str:
    """The peak learning rate, and where it comes from."""
    rate = f"{peak_rate(recipe, model):g}"
    return rate if recipe.lr != "auto" else f"{rate} (by the hidden size {hidden_size(model) or 'unknown'}; or --lr)"


def described_pruning(recipe: Recipe, steps: int) -> list[str]:
    """When, in a training of so many steps, pruning takes place, and whether they are few."""
    start, end = recipe.pruning_steps(steps)
    described = [f"from step {start:,} to {end:,} of {steps:,}, which leaves {steps - end:,} to recover in"]
    if steps < FEW_STEPS:
        described.append(f"fewer than {FEW_STEPS} steps: more --epochs are likely to help a pruned model")
    return described


def weak_teacher(data: Data, score_of_teacher: float) -> list[str]:
    """A sentence where a teacher's score is not above that of one answer for all validation rows: the most frequent
    class, or any number. Its labels may be in another order, or its task another."""
    task, constant = data.task, {}
    for split, rows in data.validations.items():
        labels = np.asarray(rows["label"][:])
        answer = 0.0 if task.is_regression else float(np.bincount(labels.astype(int)).argmax())
        constant[split] = compute_metrics(task, np.full(len(labels), answer), labels)
    reached = score(task, merge_splits(task, constant))
    if score_of_teacher > reached or reached == 1:  # where all rows have one label, any good model answers so
        return []
    return [f"one answer for all rows would score {reached:.4f}: is it a teacher of this task?"]


def nearly_removed(sparsities: Mapping[str, float]) -> dict[str, float]:
    """The layers of which more than NEARLY_REMOVED is masked."""
    return {name: sparsity for name, sparsity in sparsities.items() if sparsity > NEARLY_REMOVED}


def at_end(layers_past_95: Mapping[str, float]) -> list[str]:
    """Lines for the end of a run: the layers that pruning has nearly removed."""
    if not layers_past_95:
        return []
    named = ", ".join(f"{name} ({sparsity:.1%})" for name, sparsity in layers_past_95.items())
    return [
        f"layers of which more than {NEARLY_REMOVED:.0%} is removed: {named}: --scope lamp or layer, or a lower "
        "--max-layer-sparsity, spreads the pruning"
    ]
