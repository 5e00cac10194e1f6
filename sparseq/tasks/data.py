"""`Data`: a task's rows, and what was inferred about their sources."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from sparseq.tasks.labels import brief_name, listed
from sparseq.tasks.spec import CUSTOM, Task
from sparseq.tasks.table import NUMBER
from sparseq.terminal import counted

if TYPE_CHECKING:
    from datasets import Dataset

_FAR = 100.0
"""Regression labels beyond this get a note: a new head gives numbers near 0."""

_MANY_CLASSES = 20
"""More classes than this, with hardly a row each, get a note: it may be a column of numbers, dates or texts."""

_MISSING = frozenset({"nan", "na", "n/a", "<na>", "#n/a", "null", "none", "nil", "undefined"})
"""What tools write for a missing value; it may also be the name of a class."""


@dataclass(frozen=True)
class Source:
    """The source of the rows of one split.

    Attributes:
        name: the file's path, or the hub's data set.
        rows: how many were read, before a subset was taken.
        skipped: malformed rows that were left out.
        unlabelled: rows without a label.
        empty: rows with a text that is empty or only spaces.
        notes: other findings about the file, such as its separator.
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
        train: the training rows; None if they were not requested.
        validations: the rows of each of `task.validation_splits`.
        sources: the source of each split: "train", if it was read, and the validation splits.
        held_out: training rows that were set aside to score on (see `held_out`); None if none were requested.
        origin: of rows of a named data set: its "name", and where they are known its "config" and "revision" (the
            commit, or else the one that was asked for); empty for other rows.

    The datasets' columns are "text_a", "text_b" for tasks on pairs (strings), and "label" (int64, float64 for
    regression). A training row without a label, where that is allowed, has -100 there, or NaN.
    """

    task: Task
    train: Dataset | None
    validations: dict[str, Dataset]
    sources: dict[str, Source] = field(default_factory=dict)
    held_out: Dataset | None = None
    origin: dict[str, str] = field(default_factory=dict)

    @property
    def skipped(self) -> dict[str, int]:
        """How many malformed rows were left out, by split (GLUE's QQP files have some)."""
        return {split: source.skipped for split, source in self.sources.items() if source.skipped}

    def summary(self) -> list[str]:
        """What was inferred, as sentences without a full stop: rows, texts, labels, metrics.

        For example "98 training rows from train.csv", "3 classes: a, b, c", "regression, 0 to 5".
        """
        said = []
        for split, rows in [("train", self.train), *self.validations.items()]:
            if rows is not None and split in self.sources:
                said.append(_rows(split, self.sources[split], len(rows)))
        if self.held_out is not None:
            said.append(f"{len(self.held_out):,} other training rows are held out to score on")
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
            return f"{task.num_labels:,} classes: {listed(task)}{where}"
        low, high = task.label_range or self._range()
        return f"regression, {low:g} to {high:g}{where}"

    def _range(self) -> tuple[float, float]:
        parts = [rows for rows in (self.train, *self.validations.values()) if rows is not None]
        values = np.concatenate([np.asarray(rows["label"], dtype=np.float64) for rows in parts])
        return float(np.nanmin(values)), float(np.nanmax(values))

    def _warnings(self) -> list[str]:
        found = [
            f"all {split.replace('_', ' ')} rows have one label: the metrics mean little" for split in self._flat()
        ]
        if self.task.is_regression:
            if max(map(abs, self._range())) > _FAR:
                found.append(
                    f"labels reach far beyond {_FAR:g}, which trains slowly or not at all: scale them to about -1 to 1"
                )
            return found
        names = self.task.label_names or ()
        if missing := [name for name in names if name.casefold() in _MISSING]:
            found.append(
                f"class {brief_name(missing[0])!r} may mean that there is no label: if it does, leave those rows out"
            )
        if same := _alike(names):
            found.append(f"classes {same[0]!r} and {same[1]!r} are written almost alike: are they one?")
        if self.train is not None and self.task.num_labels > max(_MANY_CLASSES, len(self.train) // 2):
            numbers = all(map(NUMBER.fullmatch, names))
            found.append(
                f"{self.task.num_labels:,} classes are many for {len(self.train):,} rows: column "
                f"{self.task.label_column!r} may hold "
                + ("numbers to predict (--label-kind)" if numbers else "no classes")
            )
        return found

    def _flat(self) -> list[str]:
        """The validation splits with several rows that all have the same label."""
        labels = {split: np.asarray(rows["label"]) for split, rows in self.validations.items()}
        return [split for split, values in labels.items() if len(values) > 1 and np.ptp(values) == 0]

    def _metric(self, name: str) -> str:
        what = name
        if name == "f1":
            names = self.task.label_names
            what = f"f1 of class {brief_name(names[1]) if names else 1}"
        elif name == "macro_f1":
            what = "macro_f1 (the mean over the classes)"
        alone = len(self.task.score_metrics) == 1 < len(self.task.metrics)
        return f"{what} (the score)" if alone and name in self.task.score_metrics else what


def _alike(names: Sequence[str]) -> tuple[str, str] | None:
    """The first two names that differ only in case, in Unicode form, or in invisible characters."""
    first: dict[str, str] = {}
    for name in names:
        plain = unicodedata.normalize("NFKC", name).casefold()
        plain = "".join(character for character in plain if unicodedata.category(character) not in ("Cf", "Cc"))
        other = first.setdefault(" ".join(plain.split()), name)
        if other is not name:
            return brief_name(other), brief_name(name)
    return None


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
    return f"{counted(source.rows, f'{kind} row')} from {source.name}{taken}" + (f" ({details})" if details else "")
