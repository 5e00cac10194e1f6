"""Runs `make demo`'s recipe and keeps its numbers and its figure: bench/results/demo-<cpu>.json, docs/images/demo.png.

    python -m bench.studies.demo [--runs DIR]

Runs that are in --runs already are not trained again; their models are timed anew.
"""

import argparse
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from bench.common import ROOT, arguments, finish
from bench.program import run_program
from sparseq.demo.run import run
from sparseq.train.progress import Reporter

FIGURE = ROOT / "docs" / "images" / "demo.png"


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--runs", type=Path, default=Path("runs/demo-full"), help="folder of the runs")


def main(argv: Sequence[str] | None = None) -> int:
    given = arguments("The demo's recipe, for the record.", 1, argv, options)
    size = "ci" if given.smallest else "full"
    models, paired = run(size, given.runs.resolve(), Reporter())
    reference = models[0]
    rows = []
    for model in models:
        times = {
            f"ms a sentence, batch {batch}": f"{value:.2f} ({reference.milliseconds[batch] / value:.1f}x)"
            for batch, value in model.milliseconds.items()
        }
        cells = {
            "model": model.name,
            "accuracy": f"{model.accuracy:.1%}",
            "parameters": f"{model.parameters / 1e6:.1f} M",
            "paper MB": f"{model.paper_bytes / 1e6:.1f}",
            "stored MB": f"{model.stored_bytes / 1e6:.1f}",
            "times smaller": f"{reference.stored_bytes / model.stored_bytes:.1f}",
            **times,
        }
        rows.append({"case": {"model": model.name}, **model.as_dict(), "cells": cells})
    seconds = json.loads((given.runs / "results.json").read_text(encoding="utf-8"))["seconds"]
    # First the result: the figure would make its commit one "with changes".
    finish("demo", rows, {"size": size, "seconds": seconds, "paired": asdict(paired)}, given)
    if not given.smallest:
        FIGURE.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(given.runs / "demo.png", FIGURE)
    return 0


if __name__ == "__main__":
    run_program(main)
