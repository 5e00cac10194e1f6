"""The main job on real input, by a fixed recipe: `python -m sparseq.demo`, which is what `make demo` runs.

MiniLM-L6 is fine-tuned on rated movie-review snippets as the teacher; a student of three of its layers is trained twice
from the same start, plainly, and with QAT + KD (with synonym augmentation) + MP; the compressed one is packed, saved,
loaded back and evaluated. Broken off at any moment, the same command goes on; run again, it shows its results.

Both students are trained for the same epochs at the same rate, and in fp32 on every processor: a recipe whose outcome
depends on the processor is not one. `bench.studies.demo_seeds` says how much the outcome varies with the seed.
"""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from sparseq import assets
from sparseq.checkpoint import load
from sparseq.errors import InputError
from sparseq.models import load_tokenizer
from sparseq.paired import PairedAnswers
from sparseq.report import ModelRow, bars, comparison_table, save_figure
from sparseq.terminal import Parser, say, say_error
from sparseq.timing import time_sentences
from sparseq.train import METHODS, Recipe, RunResult, compress
from sparseq.train.console import Reporter, SafeConsole
from sparseq.train.scoring import right_answers

ALLOWED_LOSS = 0.01
# A difference within so many standard errors is one that chance makes.
NOISE = 2


@dataclass(frozen=True)
class DemoSize:
    """rows: to train on; heldout: rows to score on; sentences: to time on, in so many alternating rounds."""

    rows: int
    heldout: int
    epochs: float
    sentences: int
    rounds: int


SIZES = {
    "full": DemoSize(rows=1600, heldout=1000, epochs=2, sentences=32, rounds=7),
    "ci": DemoSize(rows=96, heldout=64, epochs=1, sentences=32, rounds=3),
}


def recipes(size: DemoSize, folder: Path, seed: int = 0, precision: str = "fp32") -> dict[str, Recipe]:
    """The three runs, in order: teacher, plain student, compressed student."""
    train, validation = assets.write_movie_task(folder / "data", heldout=1000)
    common = Recipe(
        train_file=str(train),
        validation_file=str(validation),
        text_columns=("sentence",),
        label_column="label",
        max_train_rows=size.rows,
        max_validation_rows=size.heldout,
        max_length=40,
        epochs=size.epochs,
        batch_size=32,
        lr=1e-4,
        save_steps=40,
        precision=precision,
        seed=seed,
    )
    teacher = common.replace(model=str(assets.minilm_path()), methods=(), out=str(folder / "teacher"))
    student = common.replace(model=str(folder / "teacher"), layers=3, epochs=1.5 * size.epochs, lr=3e-4)
    return {
        "teacher": teacher,
        "plain student": student.replace(methods=(), out=str(folder / "plain")),
        "compressed student": student.replace(
            methods=METHODS,
            teacher=str(folder / "teacher"),
            wordnet=str(assets.wordnet_dir()),
            augment_copies=1,
            sparsity=0.6,
            pattern="unstructured",
            prune_warmup=0.05,
            prune_end=0.5,
            out=str(folder / "compressed"),
        ),
    }


def run(size_name: str, folder: Path, reporter: Reporter) -> tuple[list[ModelRow], PairedAnswers]:
    """Trains the three, times them side by side, and leaves `results.json` and `demo.png` in the folder.

    Returns a row a model, and the answers of the plain and of the compressed student.
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
    sentences = [text for _, text in assets.movie_snippets()[: size.sentences]]
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
    paired = PairedAnswers.of(*(right_answers(results[f"{kind} student"].out) for kind in ("plain", "compressed")))
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


TITLE = "MiniLM-L6 on movie-review snippets, measured on this machine"


def verdict(rows: Sequence[ModelRow], paired: PairedAnswers) -> str:
    """Two sentences: whether the compressed student kept the plain one's accuracy, and how sure that is."""
    teacher, _, compressed = rows
    points, error = 100 * paired.lost, 100 * paired.standard_error
    kept = "loses nothing to" if points <= 0 else f"loses {points:.1f} points to"
    judgement, allowed = "", 100 * ALLOWED_LOSS
    if points > allowed + NOISE * error:
        judgement = f", MORE than the {allowed:.0f} point allowed and than chance makes,"
    elif points > allowed:
        judgement = f", more than the {allowed:.0f} point allowed but no more than chance makes,"
    return (
        f"The compressed student {kept} the plain one{judgement} and takes "
        f"{teacher.stored_bytes / compressed.stored_bytes:.1f} times less storage than the teacher. "
        f"Their difference has a standard error of {error:.1f} points on these {paired.rows:,} rows."
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="sparseq.demo", description="Compress a real BERT on this machine.")
    parser.add_argument("--size", choices=SIZES, default="full", help="full (the default), or ci: the same in small")
    parser.add_argument("--out", type=Path, help="folder for the runs (default: runs/demo-SIZE)")
    reporter = Reporter()
    try:
        arguments = parser.parse_args(argv)
        folder = (arguments.out or Path("runs") / f"demo-{arguments.size}").resolve()
        rows, paired = run(arguments.size, folder, reporter)
    except InputError as error:
        say_error(error)
        return 2
    except KeyboardInterrupt:
        say("sparseq: interrupted; the same command goes on from the last checkpoint", error=True)
        return 130
    shown = os.path.relpath(folder)
    program = os.path.relpath(Path(sys.executable).with_name("sparseq"))
    console = SafeConsole()
    console.print("")
    console.print(comparison_table(rows, TITLE))
    console.print(bars(rows))
    console.print(f"\n{verdict(rows, paired)}")
    console.print(f"Figure: {shown}/demo.png   Numbers: {shown}/results.json")
    console.print(f'Try it: {program} predict {shown}/compressed "a charming, funny film"')
    return 0


if __name__ == "__main__":
    sys.exit(main())
