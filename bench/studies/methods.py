"""What the defaults of a compression run come from: its settings compared, over seeds, on held-out training rows.

    python -m bench.studies.methods --study NAME --model M --data-dir GLUE [--seeds 3] [--cases TEXT] [--runs DIR]

Students are three of the model's layers. All runs of a seed train on the same rows of SST-2's `train.tsv` and are
scored on the same others of that file, none of which contains a training row or is contained in one: the rows that
the task is reported on are never seen. Runs that are in --runs already are not run again; the file is written after
each run.
"""

import argparse
import csv
import functools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from bench.common import arguments, write_result
from bench.program import run_program
from sparseq.errors import InputError
from sparseq.train import Recipe, RunResult, compress

ROWS, HELD_OUT, LAYERS = 1200, 1000, 3
MP = {"methods": ("mp",), "pattern": "4x4", "criterion": "magnitude"}


@dataclass(frozen=True)
class Study:
    """cases: what is said of each in the table -> the settings that differ. common: settings of all of them."""

    about: str
    common: Mapping[str, Any]
    cases: Mapping[str, Mapping[str, Any]]
    taught: bool = False


STUDIES = {
    "lr": Study(
        "peak learning rate, plain fine-tuning",
        {"methods": ()},
        {f"lr {rate:g}": {"lr": rate} for rate in (2e-5, 5e-5, 1e-4, 2e-4, 3e-4, 6e-4)},
    ),
    "lr_pruned": Study(
        "peak learning rate, 60 % of the weights removed in 4x4 blocks",
        {**MP, "sparsity": 0.6},
        {f"lr {rate:g}": {"lr": rate} for rate in (5e-5, 1e-4, 2e-4, 3e-4)},
    ),
    "scope": Study(
        "over what weights are ranked",
        MP,
        {
            f"{pattern}, {sparsity:.0%}, {scope}": {"pattern": pattern, "sparsity": sparsity, "scope": scope}
            for pattern in ("4x4", "unstructured")
            for sparsity in (0.6, 0.8)
            for scope in ("global", "layer", "lamp")
        },
    ),
    "epochs": Study(
        "epochs with pruning, 4x4, and without",
        MP,
        {
            f"{sparsity:.0%}, {epochs:g} epochs": {
                "epochs": epochs,
                **({"sparsity": sparsity} if sparsity else {"methods": ()}),
            }
            for epochs in (2, 3, 6, 9)
            for sparsity in (0.6, 0.8, 0)
        },
    ),
    "calibration": Study(
        "what a static activation range ends at, int8",
        {"methods": ("qat",), "activation": "static"},
        {
            **{method: {"calibration": method} for method in ("max", "average", "percentile", "mse")},
            "dynamic (a scale a token)": {"activation": "dynamic"},
        },
    ),
    "copies": Study(
        "weight of the teacher's loss, on rows and on their copies",
        {"methods": ("kd",), "augment_copies": 1},
        {
            f"kd_alpha {alpha:g}, on copies {copies:g}": {"kd_alpha": alpha, "augment_alpha": copies}
            for alpha, copies in ((0.5, 0.5), (0.5, 0.9), (0.5, 1.0), (1.0, 1.0))
        },
        taught=True,
    ),
}


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--study", choices=STUDIES, default="scope", help="what is compared")
    parser.add_argument("--model", required=True, help="the pretrained model whose layers the students are")
    parser.add_argument("--data-dir", type=Path, required=True, help="folder in the classic GLUE layout")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each case")
    parser.add_argument("--cases", default="", help="only those whose name contains this")
    parser.add_argument("--lr", type=float, help="peak learning rate of the cases that name none")
    parser.add_argument("--runs", type=Path, default=Path("runs/methods"), help="folder of the runs")


def split(source: Path, folder: Path, rows: int, held_out: int, seed: int) -> tuple[Path, Path]:
    """`rows` training rows and as many `held_out` ones, drawn from the file by `seed`, written to the folder."""
    train, validation = folder / "train.csv", folder / "held_out.csv"
    if not validation.exists():
        lines = [line.rpartition("\t") for line in source.read_text(encoding="utf-8").splitlines()[1:]]
        texts = list({text.strip(): label for text, _, label in lines}.items())
        random.Random(seed).shuffle(texts)
        chosen = texts[:rows]
        other = [row for row in texts[rows:] if not any(row[0] in text or text in row[0] for text, _ in chosen)]
        folder.mkdir(parents=True, exist_ok=True)
        for path, content in ((train, chosen), (validation, other[:held_out])):
            with path.open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows([("sentence", "label"), *content])
    return train, validation


def run(recipe: Recipe) -> RunResult:
    """The run's result; of its folder only the numbers are kept, and read again where the run has finished before."""
    folder = Path(str(recipe.out))
    if (folder / "metrics.json").exists():
        different = Recipe.from_file(folder / "recipe.toml").differences(recipe.validate().resolved())
        if different:
            raise InputError(f"{folder} holds a run with another {', '.join(different)}: remove it")
        return RunResult.from_folder(folder)
    result = compress(recipe)
    (Path(result.out) / "model.safetensors").unlink(missing_ok=True)
    return result


def recipe_of(study: Study, changes: Mapping[str, Any], given: argparse.Namespace, seed: int) -> Recipe:
    rows, held_out = (64, 32) if given.smallest else (ROWS, HELD_OUT)
    train, validation = split(
        given.data_dir / "SST-2" / "train.tsv", given.runs / f"data-{rows}-{seed}", rows, held_out, seed
    )
    common = Recipe(
        model=given.model,
        train_file=str(train),
        validation_file=str(validation),
        text_columns=("sentence",),
        label_column="label",
        max_length=64,
        batch_size=32,
        epochs=1.0 if given.smallest else 3.0,
        precision="fp32",
        seed=seed,
    )
    if given.lr:
        common = common.replace(lr=given.lr)
    if study.taught:
        teacher = given.runs / f"teacher-{rows}-{seed}"
        compress(common.replace(methods=(), out=str(teacher)))
        common = common.replace(model=str(teacher), teacher=str(teacher))
    return common.replace(layers=1 if given.smallest else LAYERS, **{**study.common, **changes})


def summary(name: str, results: Sequence[RunResult], extra: Mapping[str, Any]) -> dict[str, Any]:
    """A case's line: the mean over seeds, and its standard error."""
    scores = [100 * result.score for result in results]
    error = stdev(scores) / len(scores) ** 0.5 if len(scores) > 1 else None
    shown = f"{mean(scores):.1f}" + (f" ± {error:.1f}" if error is not None else "")
    return {
        "case": {"case": name},
        "scores": [result.score for result in results],
        "standard_error": None if error is None else error / 100,
        "steps": results[0].steps,
        "seconds": [result.seconds for result in results],
        **extra,
        "cells": {"case": name, "accuracy, %": shown, "each seed": "/".join(f"{score:.1f}" for score in scores)},
    }


def main(argv: Sequence[str] | None = None) -> int:
    given = arguments("Settings of a run compared on held-out training rows.", 1, argv, options)
    study = STUDIES[given.study]
    given.runs = given.runs.resolve()
    seeds = 1 if given.smallest else given.seeds
    cases = {name: changes for name, changes in study.cases.items() if given.cases in name}
    found: dict[str, list[RunResult]] = {name: [] for name in cases}
    recipe = functools.partial(recipe_of, study, given=given)
    for seed in range(seeds):
        for name, changes in cases.items():
            made = recipe(changes, seed=seed)
            words = "".join(letter if letter.isalnum() or letter in ".-" else "_" for letter in name)
            found[name].append(run(made.replace(out=str(given.runs / given.study / f"{words}-{made.lr:g}-{seed}"))))
            rows = [summary(name, results, {}) for name, results in found.items() if results]
            print(rows[list(cases).index(name)]["cells"], flush=True)
            if not given.smallest or given.out:
                settings = {
                    "study": study.about,
                    "training rows": ROWS,
                    "held-out rows": HELD_OUT,
                    "student layers": LAYERS,
                    "lr": made.lr if "lr" not in changes else "varied",
                }
                write_result(f"methods_{given.study}", rows, settings, given.out)
    return 0


if __name__ == "__main__":
    run_program(main)
