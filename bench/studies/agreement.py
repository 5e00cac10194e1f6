"""Whether the fused encoder of a packed model says what its own layers say, on the validation rows it was trained for.

    python -m bench.studies.agreement DIR [DIR ...] [--threads N] [--out DIR]

Each DIR is a finished run of `sparseq compress` with a packed model. Each row compares two ways of running it: how many
rows get another class, and by how much the logits differ (the Euclidean norm of the difference, over that of the second
way). Two layered ways that differ in the order of floating-point sums alone show what rounding does by itself.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.common import arguments, finish
from bench.program import run_program
from sparseq.errors import InputError
from sparseq.nn import fused_reason, use_fused_encoder
from sparseq.tasks import Task, compute_metrics, score
from sparseq.train.scoring import finished, load_folder, own_rows, predict_logits
from sparseq_kernels.cpu.encoder import why_no_bf16_attention

FUSED, LAYERED, EAGER = "fused", "layer by layer", "layer by layer, attention 'eager'"
BF16 = "fused, attention in bf16"


def ways(model: nn.Module) -> dict[str, Callable[[], object]]:
    """What sets the model up for each way of running it."""

    def set_up(on: bool, attention: str, bf16: bool | None = False) -> Callable[[], object]:
        def run() -> object:
            model.set_attn_implementation(attention)  # type: ignore[operator]
            return use_fused_encoder(model, on, bf16_attention=bf16)

        return run

    found = {FUSED: set_up(True, "sdpa"), LAYERED: set_up(False, "sdpa"), EAGER: set_up(False, "eager")}
    return found | ({BF16: set_up(True, "sdpa", True)} if why_no_bf16_attention() is None else {})


def row(name: str, other: str, logits: dict[str, Tensor], labels: Tensor, task: Task) -> dict[str, Any]:
    a, b = logits[name], logits[other]
    changed = None if task.is_regression else int((a.argmax(1) != b.argmax(1)).sum())
    distance = float((a - b).norm() / b.norm())
    scores = {way: score(task, compute_metrics(task, logits[way].numpy(), labels.numpy())) for way in (name, other)}
    cells = {
        "task": task.name,
        "one way": name,
        "beside": other,
        "rows": f"{len(a):,}",
        "of another class": "-" if changed is None else str(changed),
        "logits": f"{distance:.1e}",
        "scores": " / ".join(f"{100 * value:.2f}" for value in scores.values()),
    }
    print("  ".join(cells.values()), flush=True)
    return {
        "case": {"task": task.name, "way": name, "beside": other},
        "changed": changed,
        "distance": distance,
        "scores": scores,
        "cells": cells,
    }


def compare(folder: Path) -> list[dict[str, Any]]:
    """The rows of one finished run. Raises InputError for a model that does not run fused."""
    task, recipe = finished(folder)
    model, tokenizer = load_folder(folder)
    if (reason := fused_reason(model, of_model=True)) is not None:
        raise InputError(f"{folder} does not run fused: {reason}")
    # MNLI has two splits: rows are compared, and those of the first are enough.
    [rows, *_] = own_rows(task, recipe, tokenizer, model)
    labels = torch.as_tensor(rows.with_format("numpy")["labels"])
    logits = {}
    for name, set_up in ways(model).items():
        set_up()
        logits[name] = predict_logits(model, rows, tokenizer, batch_size=recipe.eval_batch_size)
    pairs = [(FUSED, LAYERED), (EAGER, LAYERED), *([(BF16, FUSED)] if BF16 in logits else [])]
    return [row(name, other, logits, labels, task) for name, other in pairs]


def _own(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", type=Path, nargs="+", metavar="DIR", help="finished runs of sparseq compress")


def main(argv: Sequence[str] | None = None) -> int:
    given = arguments("Fused and layered predictions of packed models.", 1, argv, _own)
    rows = [row for folder in given.runs for row in compare(folder)]
    finish("agreement", rows, {"models": [folder.name for folder in given.runs]}, given)
    return 0


if __name__ == "__main__":
    run_program(main)
