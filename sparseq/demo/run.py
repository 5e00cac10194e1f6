"""Runs the demo's three recipes, times the saved models, and writes the numbers and the figure."""

import json
from dataclasses import asdict
from pathlib import Path

from sparseq.checkpoint import load
from sparseq.errors import InputError
from sparseq.models import load_tokenizer
from sparseq.paired import PairedAnswers
from sparseq.timing import time_sentences
from sparseq.train import RunResult, compress
from sparseq.train.progress import Reporter

from .comparison import ModelRow, save_figure
from .data import movie_snippets
from .recipes import SIZES, recipes

TITLE = "MiniLM-L6 on movie-review snippets, measured on this machine"


def run(size_name: str, folder: Path, reporter: Reporter) -> tuple[list[ModelRow], PairedAnswers]:
    """Trains the three models, times them side by side, and writes `results.json` and `demo.png` into the folder.

    Returns one row per model, and the answers of the plain and the compressed student.
    """
    size = SIZES[size_name]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write to --out {folder}: {error.strerror}") from error
    results: dict[str, RunResult] = {}
    planned = recipes(size, folder)
    for number, (name, recipe) in enumerate(planned.items(), 1):
        methods = " + ".join(recipe.methods).upper() or "plain fine-tuning"
        reporter.say(f"\n[{number}/{len(planned)}] {name}: {methods}")
        results[name] = compress(recipe, reporter=reporter)
    reporter.say("\nTiming the saved models, alternately")
    models = {name: load(recipe.out) for name, recipe in planned.items() if recipe.out}
    sentences = [text for _, text in movie_snippets()[: size.sentences]]
    tokenizer = load_tokenizer(folder / "teacher")
    timed = time_sentences(models, tokenizer, sentences, rounds=size.rounds)
    rows = [
        ModelRow(
            name,
            result.score,
            result.parameters,
            result.paper_bytes,
            result.stored_bytes,
            {batch: 1e3 * comparison.time(name).median for batch, comparison in timed.items()},
        )
        for name, result in results.items()
    ]
    paired = PairedAnswers.of(*(results[f"{kind} student"].right_answers() for kind in ("plain", "compressed")))
    content = {
        "size": size_name,
        "paired": asdict(paired),
        "rows": [row.as_dict() for row in rows],
        "seconds": {name: result.seconds for name, result in results.items()},
        "versions": results["teacher"].versions,
    }
    (folder / "results.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    save_figure(rows, folder / "demo.png", TITLE)
    return rows, paired
