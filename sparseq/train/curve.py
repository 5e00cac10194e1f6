"""The course of a training: one row for each optimizer step, as a CSV file."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from itertools import pairwise
from pathlib import Path

from sparseq.errors import InputError
from sparseq.reading import read_text

CURVE = "training.csv"
"""Its name, in a run's folder and in each checkpoint."""


@dataclass(frozen=True)
class Step:
    """One optimizer step.

    Attributes:
        step: its number, from 1.
        loss: of its batch, before the step; of the first process's part of it.
        learning_rate: that the step was taken with.
        sparsity: the share of the prunable weights that is removed after it; None without mp.
        score: of the model after it, a fraction; None if it was not evaluated then.
    """

    step: int
    loss: float
    learning_rate: float
    sparsity: float | None = None
    score: float | None = None


def to_csv(steps: Iterable[Step]) -> str:
    """The rows below a header; None is empty, and numbers are written so that they are read back exactly."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(field.name for field in fields(Step))
    writer.writerows(["" if value is None else repr(value) for value in astuple(step)] for step in steps)
    return text.getvalue()


def from_csv(path: Path) -> list[Step]:
    """The rows of a file that `to_csv` wrote.

    Raises InputError if it is another file, and if a step is missing or stands twice.
    """
    rows = list(csv.reader(io.StringIO(read_text(path))))
    try:
        if rows[:1] != [[field.name for field in fields(Step)]]:
            raise ValueError("it has another header")
        steps = [_step(*row) for row in rows[1:]]
        if any(step.step != before.step + 1 for before, step in pairwise(steps)):
            raise ValueError("a step is missing or stands twice")
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} is not the course of a training ({error}): remove it, or train again") from error
    return steps


def _step(step: str, loss: str, learning_rate: str, sparsity: str, score: str) -> Step:
    optional = (float(text) if text else None for text in (sparsity, score))
    return Step(int(step), float(loss), float(learning_rate), *optional)


def best_step(steps: Sequence[Step], first: float) -> Step | None:
    """The step from `first` on with the highest score, the earliest of equal ones; None if none was evaluated."""
    scored = [step for step in steps if step.step >= first and step.score is not None]
    return max(scored, key=lambda step: step.score or 0.0, default=None)
