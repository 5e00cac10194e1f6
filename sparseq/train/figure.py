"""The figure of a training: loss, sparsity and score over its steps."""

import io
from pathlib import Path
from typing import Any

from sparseq.extras import naming_extra

from .curve import CURVE, Step, from_csv
from .durable import write_whole
from .result import RunResult

FIGURE = "training.png"
WINDOW = 50
"""The line through the losses is a mean over a fiftieth of the steps."""


@naming_extra("train")
def draw_training(folder: str | Path) -> Path | None:
    """Draws the training of a finished run into its folder, as a PNG file, and returns its path.

    Returns None for a run without training, and for one of before there was a `training.csv`. Raises InputError if the
    folder has no finished run, or if that file was changed.
    """
    result, path = RunResult.from_folder(folder), Path(folder)
    if not (path / CURVE).exists() or not (steps := from_csv(path / CURVE)):
        return None
    image = io.BytesIO()
    _figure(steps, result).savefig(image, format="png")
    write_whole(path / FIGURE, image.getvalue())
    return path / FIGURE


def _figure(steps: list[Step], result: RunResult) -> Any:
    from matplotlib.figure import Figure  # imported last: it takes a quarter of a second

    scored = [step for step in steps if step.score is not None]
    pruned = any(step.sparsity is not None for step in steps)
    panels = 1 + pruned + bool(scored)
    figure = Figure(figsize=(7, 0.8 + 1.9 * panels), dpi=120, layout="constrained")
    axes = figure.subplots(panels, 1, sharex=True, squeeze=False)[:, 0].tolist()
    title = f"{result.task}: {' + '.join(result.methods) or 'plain fine-tuning'}, seed {result.seed}"
    axes[0].set_title(title, loc="left", fontsize="medium")
    numbers, losses = [step.step for step in steps], [step.loss for step in steps]
    width = max(1, len(steps) // WINDOW)
    axes[0].plot(numbers, losses, color="0.8" if width > 1 else "C0", linewidth=0.8, label="of each batch")
    if width > 1:
        means = [sum(losses[end - width : end]) / width for end in range(width, len(losses) + 1)]
        axes[0].plot(numbers[width - 1 :], means, color="C0", label=f"mean of {width} steps")
        axes[0].legend(frameon=False, fontsize="small")
    axes[0].set_ylabel("loss")
    if pruned:
        axes[1].step(numbers, [step.sparsity for step in steps], where="post", color="C1")
        axes[1].set_ylabel("sparsity\n(share of weights)")
        axes[1].set_ylim(0, 1)
    if scored:
        axes[-1].plot([step.step for step in scored], [step.score for step in scored], color="C2", marker="o", ms=4)
        rows = "validation" if result.held_out_score is None else "held-out"
        metrics = result.task_definition["score_metrics"]
        named = metrics[0] if len(metrics) == 1 else f"mean of {' and '.join(metrics)}"
        axes[-1].set_ylabel(f"{named}\non {rows} rows")
    if result.kept_step is not None:
        for axis in axes:
            axis.axvline(result.kept_step, color="0.3", linestyle=":", label="weights that are kept")
        axes[-1].legend(frameon=False, fontsize="small")
    for axis in axes:
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    axes[-1].set_xlabel("optimizer step")
    axes[-1].set_xlim(0, numbers[-1])
    return figure
