"""The recipes of the demo's three runs, in two sizes."""

from dataclasses import dataclass
from pathlib import Path

from sparseq.augment import wordnet_dir
from sparseq.train import METHODS, Recipe

from .data import minilm_path, write_movie_task


@dataclass(frozen=True)
class DemoSize:
    """The size of the demo.

    rows: training rows. heldout: rows to score on. sentences: sentences to time, in `rounds` alternating rounds.
    """

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
    train, validation = write_movie_task(folder / "data", heldout=1000)
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
    teacher = common.replace(model=str(minilm_path()), methods=(), out=str(folder / "teacher"))
    # As good as 0, 2, 5, which --layers 3 keeps (docs/results/minilm-layers).
    student = common.replace(model=str(folder / "teacher"), layers=(0, 2, 4), epochs=1.5 * size.epochs, lr=3e-4)
    return {
        "teacher": teacher,
        "plain student": student.replace(methods=(), out=str(folder / "plain")),
        "compressed student": student.replace(
            methods=METHODS,
            teacher=str(folder / "teacher"),
            wordnet=str(wordnet_dir()),
            augment_copies=1,
            epochs=2 * size.epochs,  # Weights pruned in blocks need longer to recover.
            sparsity=0.5,
            pattern="4x4",  # What a CPU's fused encoder gains time from.
            prune_warmup=0.05,
            prune_end=0.5,
            out=str(folder / "compressed"),
        ),
    }
