"""The definition of a task: its columns, its labels, its metrics, and how GLUE averages them into one score.

GLUE's definitions are those of Wang et al., "GLUE: A Multi-Task Benchmark and Analysis Platform for Natural Language
Understanding" (2019), table 1: Matthews correlation for CoLA, accuracy and F1 for MRPC and QQP, Pearson and Spearman
correlation for STS-B, accuracy elsewhere, and the plain mean if a task has two. WNLI is the ninth, which is often left
out: its development set contradicts its training set.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import asdict, dataclass
from typing import Any

from sparseq.errors import InputError
from sparseq.reading import build
from sparseq_kernels.untrusted import QUOTED, quoted

CUSTOM = "custom"
"""The name of a task whose columns and labels are inferred from the user's own files."""

TEXTS = ("text_a", "text_b")
"""The names of the text columns in every loaded dataset; the label's column is "label"."""


@dataclass(frozen=True)
class Task:
    """One text classification or regression task.

    Attributes:
        name: one of `GLUE`'s keys, or `CUSTOM`.
        columns: the one or two text columns, as named in the hub's dataset and the user's own files.
        label_column: the column of labels there.
        num_labels: number of classes; 1 means regression.
        label_names: the names of the classes in the order of their numbers; None if they have none.
        metrics: names of the metrics that `compute_metrics` returns for one validation split.
        score_metrics: the metrics whose mean is the task's score.
        validation_splits: names of the validation splits; MNLI has two.
        label_range: smallest and largest valid label of a regression task; None if any finite number is valid.
    """

    name: str
    columns: tuple[str, ...]
    label_column: str = "label"
    num_labels: int = 2
    label_names: tuple[str, ...] | None = None
    metrics: tuple[str, ...] = ("accuracy",)
    score_metrics: tuple[str, ...] = ("accuracy",)
    validation_splits: tuple[str, ...] = ("validation",)
    label_range: tuple[float, float] | None = None

    @property
    def is_regression(self) -> bool:
        """True if labels are numbers to predict, not classes."""
        return self.num_labels == 1

    def as_dict(self) -> dict[str, Any]:
        """The task as values for JSON; `from_dict` reads it back."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Task:
        """The task that `as_dict` wrote, also after conversion to JSON and back.

        Raises:
            InputError: a field is missing or unknown, or has an invalid value.
        """
        try:
            task = build(cls, values)
        except ValueError as error:
            raise InputError(f"these are not the fields of a task: {error}") from error
        if task.num_labels < 1 or len(task.columns) not in (1, 2):
            raise InputError(f"a task has one or two columns and a label at least, not {quoted(task)}")
        if task.label_names is not None and len(task.label_names) != task.num_labels:
            raise InputError(f"the task has {task.num_labels} labels, but {len(task.label_names)} names for them")
        return task


_ENTAILMENT = ("entailment", "not_entailment")

GLUE: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            "cola",
            ("sentence",),
            label_names=("unacceptable", "acceptable"),
            metrics=("matthews", "accuracy"),
            score_metrics=("matthews",),
        ),
        Task("sst2", ("sentence",), label_names=("negative", "positive")),
        Task(
            "mrpc",
            ("sentence1", "sentence2"),
            label_names=("not_equivalent", "equivalent"),
            metrics=("accuracy", "f1"),
            score_metrics=("accuracy", "f1"),
        ),
        Task(
            "qqp",
            ("question1", "question2"),
            label_names=("not_duplicate", "duplicate"),
            metrics=("accuracy", "f1"),
            score_metrics=("accuracy", "f1"),
        ),
        Task(
            "stsb",
            ("sentence1", "sentence2"),
            num_labels=1,
            metrics=("pearson", "spearman"),
            score_metrics=("pearson", "spearman"),
            label_range=(0.0, 5.0),
        ),
        Task(
            "mnli",
            ("premise", "hypothesis"),
            num_labels=3,
            label_names=("entailment", "neutral", "contradiction"),
            validation_splits=("validation_matched", "validation_mismatched"),
        ),
        Task("qnli", ("question", "sentence"), label_names=_ENTAILMENT),
        Task("rte", ("sentence1", "sentence2"), label_names=_ENTAILMENT),
        Task("wnli", ("sentence1", "sentence2"), label_names=_ENTAILMENT[::-1]),
    )
}
"""GLUE's nine tasks by name; names, columns and label order are those of the hub's `nyu-mll/glue`."""


def plain_name(name: str) -> str:
    """`name` in lower case without punctuation: "SST-2" and "sst_2" are both "sst2"."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def get_task(name: str) -> Task:
    """The GLUE task called `name`, in any spelling ("SST-2", "sst-2", "sst2").

    Raises:
        InputError: GLUE has no such task; the message lists all.
    """
    task = GLUE.get(plain_name(name))
    if task is None:
        close = difflib.get_close_matches(plain_name(name)[:QUOTED], GLUE, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise InputError(
            f"unknown task {quoted(name)}{hint}: expected one of {', '.join(GLUE)}, "
            f"or {CUSTOM!r} with your own --train-file and --validation-file"
        )
    return task
