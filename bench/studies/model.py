"""Whole models' latency and sentences a second: plain, packed, packed and sparse, and other runtimes, in one process.

    python -m bench.studies.model --peers                  random models with the shapes of MiniLM-L6 and BERT-base
    python -m bench.studies.model --peers runs/teacher     one checkpoint
    python -m bench.studies.model --peers runs/teacher runs/student --sentences dev.tsv      scores too, and a figure

Of folders, the first is the baseline, and the one that other runtimes run. All candidates alternate; each sample comes
after a rest, and after calls of its own candidate that do not count.
"""

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from bench import frontier
from bench.common import arguments, write_result
from bench.model_timing import SLOWEST, Plan, Trial, measure, row_lines
from bench.program import run_program
from bench.runtimes import CALIBRATION_ROWS, INSTALL, peers
from bench.sentences import Sentences, read_sentences
from bench.whole_models import (
    BASELINE,
    SIZES,
    Wanted,
    described,
    folder_models,
    longest,
    packed_layers,
    packed_models,
    random_model,
    vocabulary,
)
from bench.workloads import (
    SHAPES,
    Batch,
    Lengths,
    Workload,
    of_lengths,
    of_sentences,
    of_shape,
    random_batch,
    shape_name,
    sst2_dev,
)
from sparseq.errors import InputError
from sparseq.train.progress import Reporter
from sparseq.train.quiet import quiet_libraries

REAL = "lengths"  # the --shape that stands for sentences of real lengths
ROUNDS = 15
SECONDS = 180.0
# Of the larger model the one shape that compares it with the smaller.
SHAPES_OF = {"minilm": (*(shape_name(*shape) for shape in SHAPES), REAL), "base": ("8 x 128",), "tiny": ("1 x 4", REAL)}
SMALLEST_LENGTHS = Lengths("a few lengths", "made up", "none", (3, 5, 4))
CALIBRATION_TOKENS = 64


def _own(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", nargs="*", type=Path, metavar="DIR", help="models to time instead of random ones")
    parser.add_argument("--peers", action="store_true", help="time other runtimes too, where they are installed")
    parser.add_argument("--only", metavar="WORD,...", help="candidates with one of these in their names")
    parser.add_argument(
        "--size", choices=("minilm", "base"), action="append", help="of random models; both if not given"
    )
    parser.add_argument(
        "--shape",
        metavar="BxT",
        action="append",
        help=f"sentences x tokens, or {REAL!r}: sentences of real lengths in batches of 32; all if not given",
    )
    parser.add_argument(
        "--sentences", type=Path, metavar="FILE", help="a .csv, .tsv, .jsonl or .parquet whose sentences are run"
    )
    parser.add_argument("--tokenizer", type=Path, metavar="DIR", help="for --sentences, if not the first model's")
    parser.add_argument("--text-column", metavar="NAME", help="of --sentences")
    parser.add_argument("--label-column", metavar="NAME", help="of --sentences: scores too, of the models of folders")
    parser.add_argument("--max-length", type=int, metavar="N", help="tokens that sentences are cut at")
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, help="a workload takes; fewer rounds where it is long"
    )
    parser.add_argument(
        "--slowest", type=float, default=SLOWEST, help="times as long as fp32 that another runtime may take"
    )
    parser.add_argument("--name", help="of the result file; model, or with folders model_trained, if not given")


def read_shape(text: str) -> str:
    """The name of a shape that the command line gives, as "8x128" or "8 x 128"."""
    if text == REAL:
        return text
    batch, _, tokens = (part.strip() for part in text.lower().partition("x"))
    if not (batch.isdecimal() and tokens.isdecimal() and int(batch) and int(tokens)):
        raise InputError(f"--shape is {text!r}: expected sentences x tokens, such as 8x128, or {REAL!r}")
    return shape_name(int(batch), int(tokens))


def chooser(words: str | None) -> Wanted:
    """Whether a candidate of that name is to be timed. The baseline always is."""
    parts = [word.strip().lower() for word in (words or "").split(",") if word.strip()]
    return lambda name: name == BASELINE or not parts or any(word in name.lower() for word in parts)


def workloads(models: Mapping[str, nn.Module], shapes: Sequence[str], real: Workload) -> list[Workload]:
    """Of the shapes' names; `real` is that of sentences of real lengths."""
    known, limit = vocabulary(models), longest(models)
    found = []
    for shape in shapes:
        if shape == REAL:
            found.append(real)
            continue
        batch, tokens = map(int, shape.split(" x "))
        if tokens > limit:
            raise InputError(f"--shape {shape}: the models take {limit} tokens at most")
        found.append(of_shape(known, batch, tokens))
    return found


def of_random_ids(models: Mapping[str, nn.Module], lengths: Lengths) -> Workload:
    """Random ids in sentences of these lengths."""
    padding = getattr(models[BASELINE].config, "pad_token_id", None)
    return of_lengths(vocabulary(models), lengths, longest(models), padding or 0)


def random_models(size: str, wanted: Wanted) -> dict[str, nn.Module]:
    """The baseline of that size, and what sparseq makes of it."""
    plain = random_model(SIZES[size])
    return {BASELINE: plain, **packed_models(plain, wanted)}


def models_of(folders: Sequence[Path], wanted: Wanted) -> dict[str, nn.Module]:
    """The first folder's model as the baseline, what sparseq makes of it without training, and the other folders'."""
    (_, plain), *others = folder_models(folders).items()
    models = {BASELINE: plain}
    if not packed_layers(plain):
        models |= packed_models(plain, wanted, sparse=not others)
    return models | {name: model for name, model in others if wanted(name)}


def _require_fit(models: Mapping[str, nn.Module], sentences: Sentences) -> None:
    """Raises InputError unless the models can read the sentences, and have a logit for each class of the labels."""
    limit, found = longest(models), max(sentences.lengths.tokens)
    if found > limit:
        raise InputError(f"{sentences.lengths.name} has a sentence of {found} tokens: give --max-length {limit}")
    classes = sentences.task.num_labels
    for name, model in models.items():
        logits = int(getattr(model.config, "num_labels", 0))
        if sentences.labels is not None and logits != classes:
            raise InputError(f"{name} gives {logits} logits, and the labels have {classes} classes: give its task's")


def _calibration(models: Mapping[str, nn.Module], sentences: Sentences | None) -> list[Batch]:
    """What static ranges are taken on: sentences, one by one, or random ids."""
    if sentences is not None:
        rows = sentences.rows[:CALIBRATION_ROWS]
        return [batch for row in rows for batch in of_sentences("", [row]).batches]
    known, tokens = vocabulary(models), min(CALIBRATION_TOKENS, longest(models))
    return [random_batch(known, 1, tokens, seed) for seed in range(CALIBRATION_ROWS)]


def _add_peers(trial: Trial, calibration: Sequence[Batch], wanted: Wanted, reporter: Reporter) -> None:
    """Sets up other runtimes for the trial's baseline, and says which are absent."""
    plain = trial.models[BASELINE]
    if packed_layers(plain):
        raise InputError(f"other runtimes run the first folder's model, and {trial.name} is packed: give an fp32 model")
    trial.others, trial.absent = peers(plain, calibration, wanted, reporter.say)
    for missing, reason in trial.absent.items():
        reporter.say(f"{missing}: left out, {reason}")
    if any("is not installed" in reason for reason in trial.absent.values()):
        reporter.say(f"to install other runtimes: {INSTALL}")


def _sentences(given: argparse.Namespace) -> Sentences | None:
    if given.sentences is None:
        return None
    model = given.folders[0] if given.folders else None
    tokenizer = given.tokenizer or model
    if tokenizer is None:
        raise InputError("--sentences needs a tokenizer: give its folder with --tokenizer, or the folders of models")
    return read_sentences(
        given.sentences,
        tokenizer,
        model=model,
        text_column=given.text_column,
        label_column=given.label_column,
        max_length=given.max_length,
    )


def _finish(given: argparse.Namespace, rows: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> None:
    if given.smallest and not given.out:
        return
    name = given.name or ("model_trained" if given.folders else "model")
    path = write_result(name, rows, settings, given.out)
    print(f"written: {path}")
    if any("scores" in row for row in rows):
        picture = path.with_suffix(".png") if given.out else frontier.picture_of(path)
        frontier.draw(json.loads(path.read_text(encoding="utf-8")), picture)
        print(f"written: {picture}")


def main(argv: Sequence[str] | None = None) -> int:
    """Measures what the command line asks for, and writes the result: all of it, or nothing where it is interrupted."""
    given = arguments("Whole models' latency and sentences a second, alternately.", ROUNDS, argv, _own)
    quiet_libraries()
    reporter, wanted = Reporter(), chooser(given.only)
    plan = (
        Plan(1, 0.0, settle=0.0, slowest=math.inf)
        if given.smallest
        else Plan(given.rounds, given.seconds, slowest=given.slowest)
    )
    asked = [read_shape(text) for text in given.shape or ()]
    sizes = ["tiny"] if given.smallest else given.size or ["minilm", "base"]
    sentences = _sentences(given)
    lengths = sentences.lengths if sentences else SMALLEST_LENGTHS if given.smallest else sst2_dev()
    settings: dict[str, Any] = {"models": {}, "lengths": lengths.described(), "absent": {}}
    rows: list[dict[str, Any]] = []

    def measured(name: str, models: dict[str, nn.Module], shapes: Sequence[str], own: Sentences | None) -> None:
        real = own.workload() if own else of_random_ids(models, lengths)
        chosen = workloads(models, asked or shapes, real)
        trial = Trial(name, models)
        if given.peers:
            _add_peers(trial, _calibration(models, own), wanted, reporter)
        settings["models"][name] = described(models)
        for workload in chosen:
            score = own.score if own and own.labels is not None and workload is real else None
            rows.append(measure(trial, workload, plan, reporter, score))
            print("\n" + "\n".join(row_lines(rows[-1])) + "\n", flush=True)
        settings["absent"][name] = trial.absent

    if given.folders:
        shapes = SHAPES_OF["tiny" if given.smallest else "minilm"]
        models = models_of(given.folders, wanted)
        if sentences:
            _require_fit(models, sentences)
        measured(given.folders[0].resolve().name, models, shapes, sentences)
    else:
        for size in sizes:
            measured(SIZES[size].name, random_models(size, wanted), SHAPES_OF[size], None)
    if given.folders and sentences and sentences.labels is not None:
        settings["score"] = " + ".join(sentences.task.score_metrics)
    _finish(given, rows, settings)
    return 0


if __name__ == "__main__":
    run_program(main)
