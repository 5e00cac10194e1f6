"""How much the outcome of `make demo`'s recipe varies: its three runs over several seeds, in fp32 and in bf16.

    python -m bench.studies.demo_seeds [--seeds 5] [--precisions fp32,bf16] [--runs DIR]

A seed draws the training rows, the new head, the order of rows, dropout and the synonyms; all score the same held-out
rows. The file is written after each seed. Runs that are in --runs already are not run again; broken off, the same
command continues. bf16 is slow where the processor has none.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from bench.common import arguments, write_result
from bench.program import run_program
from sparseq.demo.comparison import ALLOWED_LOSS, NOISE
from sparseq.demo.recipes import SIZES, recipes
from sparseq.paired import PairedAnswers
from sparseq.train import compress


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seeds", type=int, default=5, help="runs of each model and precision")
    parser.add_argument("--precisions", default="fp32,bf16", help="of training, separated by commas")
    parser.add_argument("--runs", type=Path, default=Path("runs/demo-seeds"), help="folder of the runs")


def points(fraction: float) -> str:
    return f"{100 * fraction:.1f}"


def measure(size: str, precision: str, seed: int, runs: Path) -> dict[str, Any]:
    """The three runs with one seed: a line of the table, and the numbers behind it."""
    planned = recipes(SIZES[size], runs / f"{size}-{precision}-{seed}", seed, precision)
    results = {name.partition(" ")[0]: compress(recipe) for name, recipe in planned.items()}
    paired = PairedAnswers.of(*(results[name].right_answers() for name in ("plain", "compressed")))
    scores = {name: result.score for name, result in results.items()}
    beyond = paired.lost > ALLOWED_LOSS + NOISE * paired.standard_error
    return {
        "case": {"precision": precision, "seed": seed},
        "scores": scores,
        "rows": paired.rows,
        "only_plain": paired.only_first,
        "only_compressed": paired.only_second,
        "lost": paired.lost,
        "standard_error": paired.standard_error,
        "beyond_allowed": beyond,
        "seconds": {name: result.seconds for name, result in results.items()},
        "cells": {
            "precision, seed": f"{precision}, {seed}",
            **{f"{name}, %": points(score) for name, score in scores.items()},
            "points lost": points(paired.lost),
            "standard error": points(paired.standard_error),
        },
    }


def summary(precision: str, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The line of a precision's mean and of its spread, the standard deviation over seeds."""
    columns: dict[str, list[float]] = {
        **{f"{name}, %": [row["scores"][name] for row in rows] for name in rows[0]["scores"]},
        "points lost": [row["lost"] for row in rows],
    }
    cells = {name: f"{points(mean(values))} ± {points(stdev(values))}" for name, values in columns.items()}
    return {
        "case": {"precision": precision, "seed": "mean"},
        "cells": {"precision, seed": f"{precision}, mean ± spread", **cells, "standard error": ""},
    }


def main(argv: Sequence[str] | None = None) -> int:
    given = arguments("The demo's recipe over several seeds.", 1, argv, options)
    size = "ci" if given.smallest else "full"
    seeds, precisions = (2, ["fp32"]) if given.smallest else (given.seeds, given.precisions.split(","))
    rows: list[dict[str, Any]] = []
    for precision in precisions:
        own: list[dict[str, Any]] = []
        for seed in range(seeds):
            own.append(measure(size, precision, seed, given.runs.resolve()))
            print(own[-1]["cells"], flush=True)
            shown = [*rows, *own, *([summary(precision, own)] if len(own) > 1 else [])]
            if not given.smallest or given.out:
                settings = {"size": size, "seeds": seeds, "allowed loss": ALLOWED_LOSS, "held-out rows": own[0]["rows"]}
                print(f"written: {write_result('demo_seeds', shown, settings, given.out)}")
        rows = shown
    return 0


if __name__ == "__main__":
    run_program(main)
