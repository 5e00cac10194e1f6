"""All eight subsets of {QAT, KD, MP} on one task, one seed: score and sizes. A teacher is fine-tuned first.

    python -m bench.studies.subsets --model M --data-dir GLUE [--task sst2] [--rows 2000] [--runs DIR]

Every student starts from the same layers of the teacher, with the same rows and epochs. Runs that are in --runs
already are not run again; interrupted, the same command continues.
"""

import argparse
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from bench.common import arguments, finish
from bench.program import run_program
from sparseq.train import METHODS, Recipe, RunResult, compress

LAYERS = 3
SPARSITY, PATTERN = 0.6, "unstructured"  # the paper's


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, help="the pretrained model that the teacher is fine-tuned from")
    parser.add_argument("--data-dir", required=True, help="folder in the classic GLUE layout")
    parser.add_argument("--task", default="sst2", help="a GLUE task")
    parser.add_argument("--rows", type=int, default=2000, help="training rows")
    parser.add_argument("--epochs", type=float, default=3.0, help="passes over them")
    parser.add_argument("--lr", type=float, default=2e-4, help="peak learning rate")
    parser.add_argument("--seed", type=int, default=0, help="of every run")
    parser.add_argument("--runs", type=Path, default=Path("runs/subsets"), help="folder of the runs")


def subsets() -> list[tuple[str, ...]]:
    """The eight subsets, the smaller first."""
    return [chosen for size in range(len(METHODS) + 1) for chosen in combinations(METHODS, size)]


def row(result: RunResult, name: str, reference: RunResult) -> dict[str, Any]:
    """One line of the table, and the numbers behind it."""
    return {
        "case": {"methods": name},
        "score": result.score,
        "paper_bytes": result.paper_bytes,
        "stored_bytes": result.stored_bytes,
        "cells": {
            "methods": name,
            "score": f"{100 * result.score:.1f}",
            "parameters": f"{result.parameters / 1e6:.1f} M",
            "kept": f"{result.nonzero / 1e6:.1f} M",
            "paper MB": f"{result.paper_bytes / 1e6:.1f}",
            "stored MB": f"{result.stored_bytes / 1e6:.1f}",
            "stored, times smaller": f"{reference.stored_bytes / result.stored_bytes:.1f}",
        },
    }


def main(argv: Sequence[str] | None = None) -> int:
    given = arguments("All eight subsets of QAT, KD and MP on one task.", 1, argv, options)
    if given.smallest:
        given.rows, given.epochs = 64, 1.0
    common = Recipe(
        task=given.task,
        data_dir=given.data_dir,
        max_train_rows=given.rows,
        max_validation_rows=32 if given.smallest else None,
        max_length=64,
        sparsity=SPARSITY,
        pattern=PATTERN,
        criterion="magnitude",  # the paper's too
        prune_end=0.5,
        epochs=given.epochs,
        lr=given.lr,
        seed=given.seed,
    )
    folder = given.runs / f"{given.task}-{given.rows}-{given.seed}"
    teacher = compress(common.replace(model=given.model, methods=(), out=str(folder / "teacher")))
    rows = [row(teacher, "teacher", teacher)]
    student = common.replace(model=teacher.out, layers=LAYERS, teacher=teacher.out)
    for methods in subsets():
        name = " + ".join(methods).upper() or "none"
        taught = student if "kd" in methods else student.replace(teacher=None)
        result = compress(taught.replace(methods=methods, out=str(folder / ("-".join(methods) or "none"))))
        rows.append(row(result, name, teacher))
        print(rows[-1]["cells"], flush=True)
    settings = {"task": given.task, "rows": given.rows, "epochs": given.epochs, "lr": given.lr, "seed": given.seed}
    finish("subsets", rows, settings | {"student layers": LAYERS, "sparsity": SPARSITY, "pattern": PATTERN}, given)
    return 0


if __name__ == "__main__":
    run_program(main)
