"""`Data`: a task's rows, and what was understood of where they came from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from sparseq.tasks.labels import listed
from sparseq.tasks.spec import CUSTOM, Task

if TYPE_CHECKING:
    from datasets import Dataset

_FAR = 100.0
"""Regression labels beyond this are worth a word: a new head gives numbers near 0."""


@dataclass(frozen=True)
class Source:
    """Where the rows of one split came from.

    Attributes:
        name: the file's path, or the hub's data set.
        rows: how many were read, before any subset was taken.
        skipped: malformed rows that were left out.
        unlabelled: rows without a label.
        empty: rows with a text of nothing but spaces.
        notes: what else was understood of the file, such as its separator.
    """

    name: str
    rows: int
    skipped: int = 0
    unlabelled: int = 0
    empty: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Data:
    """A task and its rows.

    Attributes:
        task: the task; for own files with what was inferred from them.
        train: the training rows, None where they were not asked for.
        validations: the rows of each of `task.validation_splits`.
        sources: where each split came from: "train", where it was read, and the validation splits.

    The datasets' columns are "text_a", "text_b" for tasks on pairs (strings), and "label" (int64, float64 for
    regression). A training row without a label, where that was allowed, has -100 there, or NaN.
    """

    task: Task
    train: Dataset | None
    validations: dict[str, Dataset]
    sources: dict[str, Source] = field(default_factory=dict)

    @property
    def skipped(self) -> dict[str, int]:
        """How many malformed rows were left out, by split (GLUE's QQP files have some)."""
        return {split: source.skipped for split, source in self.sources.items() if source.skipped}

    def summary(self) -> list[str]:
        """What was understood, one sentence without an end each: rows, texts, labels, metrics.

        Such as "98 training rows from train.csv", "3 classes: a, b, c", "regression, 0 to 5".
        """
        said = []
        for split, rows in [("train", self.train), *self.validations.items()]:
            if rows is not None and split in self.sources:
                said.append(_rows(split, self.sources[split], len(rows)))
        columns = self.task.columns
        said.append(
            f"text in column {columns[0]!r}"
            if len(columns) == 1
            else f"pairs of texts in columns {columns[0]!r} and {columns[1]!r}"
        )
        said += [self._labels(), *self._warnings()]
        said.append(f"metrics: {', '.join(map(self._metric, self.task.metrics))}")
        return said

    def _labels(self) -> str:
        task = self.task
        where = f" (column {task.label_column!r})" if task.name == CUSTOM else f" ({task.name})"
        if not task.is_regression:
            return f"{task.num_labels} classes: {listed(task)}{where}"
        low, high = task.label_range or self._range()
        return f"regression, {low:g} to {high:g}{where}"

    def _range(self) -> tuple[float, float]:
        parts = [rows for rows in (self.train, *self.validations.values()) if rows is not None]
        values = np.concatenate([np.asarray(rows["label"], dtype=np.float64) for rows in parts])
        return float(np.nanmin(values)), float(np.nanmax(values))

    def _warnings(self) -> list[str]:
        if not self.task.is_regression or max(map(abs, self._range())) <= _FAR:
            return []
        return [f"labels reach far beyond {_FAR:g}, which trains slowly or not at all: scale them to about -1 to 1"]

    def _metric(self, name: str) -> str:
        what = name
        if name == "f1":
            names = self.task.label_names
            what = f"f1 of class {names[1] if names else 1}"
        elif name == "macro_f1":
            what = "macro_f1 (the mean over the classes)"
        alone = len(self.task.score_metrics) == 1 < len(self.task.metrics)
        return f"{what} (the score)" if alone and name in self.task.score_metrics else what


def _rows(split: str, source: Source, used: int) -> str:
    kind = "training" if split == "train" else split.replace("_", " ")
    taken = f", of which {used:,} are taken" if used != source.rows else ""
    counts = (
        (source.skipped, "malformed, left out"),
        (source.unlabelled, "unlabelled"),
        (source.empty, "without text"),
    )
    rest = [f"{count:,} {what}" for count, what in counts if count]
    details = "; ".join([*source.notes, *rest])
    unit = "row" if source.rows == 1 else "rows"
    return f"{source.rows:,} {kind} {unit} from {source.name}{taken}" + (f" ({details})" if details else "")
