"""Loads any task's data in one form, from any source."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from sparseq.dataset_name import TRAIN_SPLIT, VALIDATION_SPLIT
from sparseq.errors import InputError
from sparseq.extras import naming_extra
from sparseq.paths import expanded
from sparseq.tasks.data import Data, Source
from sparseq.tasks.glue import read_folder
from sparseq.tasks.held_out import hold_out
from sparseq.tasks.hub import HUB_DATASET, read_hub
from sparseq.tasks.in_memory import InMemory, class_names
from sparseq.tasks.labels import LABEL_KINDS, infer_task, parse_labels, task_of_classes
from sparseq.tasks.metrics import BUILT_IN, METRICS, Metric, own_metric, own_name
from sparseq.tasks.own_sources import OwnSources, open_own, own_sources
from sparseq.tasks.spec import CUSTOM, GLUE, TEXTS, Task, get_task
from sparseq.tasks.table import Rows, Table, shown_path
from sparseq.terminal import shown
from sparseq_kernels.untrusted import quoted

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)

# GLUE's column names and two more, pairs first: a file with "question" and "sentence" has pairs
_USUAL_COLUMNS = sorted(
    {*(task.columns for task in GLUE.values()), TEXTS, ("text",)}, key=lambda names: (-len(names), names)
)


@naming_extra("train")
def load_data(
    task: str | Task,
    *,
    data_dir: str | PathLike[str] | None = None,
    train_file: str | PathLike[str] | None = None,
    validation_file: str | PathLike[str] | None = None,
    text_columns: Sequence[str] | None = None,
    label_column: str | None = None,
    label_kind: str = "auto",
    max_train_rows: int | None = None,
    max_validation_rows: int | None = None,
    held_out_rows: int | None = None,
    seed: int = 0,
    with_train: bool = True,
    allow_unlabelled: bool = False,
    train: Any = None,
    validation: Any = None,
    dataset: str | None = None,
    data: Any = None,
    train_split: str = TRAIN_SPLIT,
    validation_split: str = VALIDATION_SPLIT,
    metric: Metric | None = None,
) -> Data:
    """The task's training and validation rows, from own files, a data set, a folder, or the hub's `nyu-mll/glue`.

    Args:
        task: a GLUE task's name in any spelling, "custom" for own files, or a Task (for instance a custom one read back
            from a finished run, whose label numbers must be kept).
        data_dir: GLUE's classic folder layout: the folder of the task folders, or the task's own folder.
        train_file, validation_file: own files, see `sparseq.tasks.files.open_table`. With a GLUE task's name, its label
            names, columns and metrics are used. With "custom" the labels determine the task: whole numbers are classes,
            other numbers make a regression task, names are numbered in sorted order.
        text_columns, label_column: columns of the own files; by default the task's, and for a custom task the usual
            names ("sentence", "text", "sentence1" and "sentence2", ...) and "label".
        label_kind: for a custom task, "classes" or "regression" if that cannot be inferred from the labels, such as
            whole-number ratings to predict as numbers.
        max_train_rows: a random subset of that many training rows, chosen by `seed`, in the order of the file; a
            smaller subset with the same seed is part of a larger one.
        max_validation_rows: the same for each validation split, but independent of `seed`, so that runs with different
            seeds are scored on the same rows.
        held_out_rows: this many training rows are set aside to score on; see `held_out.hold_out`. `max_train_rows`
            takes a subset of the others.
        seed: chooses the training subset.
        with_train: False leaves out the training rows, which need not exist.
        allow_unlabelled: training rows of own files need neither a label nor a label column, for training on a
            teacher's logits alone. A custom task's classes are then those of both files.
        train, validation: rows that the program already has, in the place of own files; see
            `sparseq.tasks.in_memory.table_of`. The classes of a `ClassLabel` keep their order.
        dataset: a data set in the place of own files, of the hub or in a folder; see `sparseq.dataset_name`.
        data: the splits that the program already has, a `datasets.DatasetDict` or a dict of what `train` takes.
        train_split, validation_split: splits of `dataset` or `data`, or parts of them; see
            `sparseq.tasks.splits.choose_splits`.
        metric: a function of the caller's own, which becomes the score; see `sparseq.tasks.metrics.Metric`.

    Raises:
        InputError: an unknown task; contradicting sources; a missing folder, file or column; empty data; a label out of
            range; a malformed row; a hub that cannot be reached.
    """
    for what, rows in (
        ("max_train_rows", max_train_rows),
        ("max_validation_rows", max_validation_rows),
        ("held_out_rows", held_out_rows),
    ):
        if rows is not None and rows < 1:
            raise InputError(f"{what} is {rows}: expected a whole number of at least 1, or none for all rows")
    given = (train_file, validation_file, train, validation, dataset, data)
    own = any(value is not None for value in given)
    if own and data_dir is not None:
        raise InputError(
            "data_dir and own rows are both given: read GLUE's folders (--data-dir), or your own files or data set "
            "(--train-file and --validation-file, or --dataset), not both"
        )
    if not own and (text_columns is not None or label_column is not None):
        raise InputError(
            "text_columns and label_column name columns of own files or a data set: give --train-file and "
            "--validation-file, or --dataset, too"
        )
    if label_kind not in LABEL_KINDS:
        raise InputError(f"label_kind is {label_kind!r}: expected one of {', '.join(LABEL_KINDS)}")
    if label_kind != "auto" and (isinstance(task, Task) or task.lower() != CUSTOM):
        name = task.name if isinstance(task, Task) else task
        raise InputError(
            f"the labels of task {quoted(name)} are known: --label-kind is for your own files and data sets without "
            "--task"
        )
    known: Task | None = None
    if isinstance(task, Task):
        known = task
    elif task.lower() != CUSTOM:
        known = get_task(task)
    sources = own_sources(
        train_file=train_file, validation_file=validation_file, train=train, validation=validation, dataset=dataset,
        data=data, train_split=train_split, validation_split=validation_split, with_train=with_train or known is None,
    )  # fmt: skip
    if own:
        found = _from_own(
            known, sources, text_columns, label_column,
            label_kind=label_kind, with_train=with_train, allow_unlabelled=allow_unlabelled,
        )  # fmt: skip
    elif known is None or known.name not in GLUE:
        if data_dir is not None:
            raise InputError(
                f"--data-dir holds GLUE's tasks, and the task is {CUSTOM!r}: give --validation-file"
                + (" and --train-file" if with_train else "")
            )
        needed = "--train-file and --validation-file" if with_train else "--validation-file"
        raise InputError(f"task {CUSTOM!r} has no data of its own: give {needed}, or --dataset")
    elif data_dir is not None:
        official = GLUE[known.name]  # `known` may come from a run on own files, with their columns and one split
        found = _from_rows(official, read_folder(official, expanded(data_dir), with_train=with_train))
    else:
        found = _from_hub(GLUE[known.name], with_train)
    left, held_out = found.train, None
    if left is not None and held_out_rows is not None:
        left, held_out = hold_out(left, held_out_rows)
    return replace(
        found,
        task=_scored(found.task, metric),
        train=None if left is None else _subset(left, max_train_rows, seed),
        held_out=held_out,
        validations={split: _subset(rows, max_validation_rows, 0) for split, rows in found.validations.items()},
    )


def _scored(task: Task, metric: Metric | None) -> Task:
    """The task with the caller's own metric as its score. Raises InputError if its own one is not given."""
    if metric is not None:
        name = own_metric(metric)
        others = tuple(known for known in task.metrics if known in BUILT_IN)
        return replace(task, metrics=(*others, name), score_metrics=(name,))
    if (name := own_name(task)) and name not in METRICS:
        raise InputError(f"the run is scored by a function of your own, {name!r}: give it again (--metric, or metric=)")
    return task


def _from_hub(task: Task, with_train: bool) -> Data:
    splits = read_hub(task, with_train=with_train)
    sources = {split: Source(f"the hub's {HUB_DATASET} {task.name}", len(rows)) for split, rows in splits.items()}
    return Data(task, splits.pop("train", None), splits, sources)


def _from_own(
    task: Task | None,
    own: OwnSources,
    text_columns: Sequence[str] | None,
    label_column: str | None,
    *,
    label_kind: str,
    with_train: bool,
    allow_unlabelled: bool,
) -> Data:
    train = own.train
    if own.validation is None or (train is None and with_train):
        missing = "--validation-file" if own.validation is None else "--train-file"
        raise InputError(f"own files need {missing} too: give both a file to train on and a file to validate on")
    sources = {"validation": own.validation}
    # a custom task's labels are numbered by its training file, so without a Task that file is read in any case
    if train is not None and (with_train or task is None):
        sources = {"train": train, **sources}
    tables = {split: open_own(source) for split, source in sources.items()}
    first = next(iter(tables.values()))
    columns = choose_text_columns(text_columns, task, first)
    label_column = label_column or (task.label_column if task else "label")
    if label_column in columns:
        raise InputError(f"column {label_column!r} is named both as text and as label: they must differ")
    rows = {
        split: table.select(columns, label_column, allow_unlabelled=allow_unlabelled and split == "train")
        for split, table in tables.items()
    }
    if task is None:
        named_by = next(iter(rows.values()))  # both files if labels are missing in the first
        both = [named_by] if len(named_by.labelled()) == len(named_by.labels) else list(rows.values())
        names = class_names(train.rows, label_column) if isinstance(train, InMemory) else None
        if names and label_kind != "regression":
            task = task_of_classes(columns, label_column, names)
        else:
            task = infer_task(both, columns, label_column, label_kind)
    task = replace(task, columns=columns, label_column=label_column, validation_splits=("validation",))
    found = _from_rows(task, rows if with_train else {"validation": rows["validation"]})
    return replace(found, origin=own.origin)


def choose_text_columns(text_columns: Sequence[str] | None, task: Task | None, table: Table) -> tuple[str, ...]:
    """The named text columns, or those of the task, or for a custom task the usual ones that the file has."""
    if isinstance(text_columns, str):
        text_columns = (text_columns,)
    if text_columns is not None:
        allowed = (len(task.columns),) if task else (1, 2)
        if len(set(text_columns)) != len(text_columns) or len(text_columns) not in allowed:
            raise InputError(
                f"the text columns are named as {', '.join(map(repr, text_columns)) or 'nothing'}: "
                f"expected {' or '.join(map(str, allowed))} different column(s)"
            )
        return tuple(text_columns)
    if task is not None:
        return task.columns
    for usual in _USUAL_COLUMNS:
        if set(usual) <= set(table.columns):
            return usual
    raise InputError(
        f"{table.path} has none of the usual text columns, such as 'text' or 'sentence': {table.described()}; name one "
        "or two columns with --text-columns"
    )


def _from_rows(task: Task, splits: dict[str, Rows]) -> Data:
    from datasets import Dataset, Features, Value

    kind = Value("float64" if task.is_regression else "int64")
    names = TEXTS[: len(task.columns)]
    features = Features({**{name: Value("string") for name in names}, "label": kind})
    datasets, sources = {}, {}
    for split, rows in splits.items():
        columns: dict[str, Iterable[Any]] = dict(zip(names, map(list, zip(*rows.texts, strict=True)), strict=True))
        datasets[split] = Dataset.from_dict({**columns, "label": parse_labels(task, rows)}, features=features)
        if rows.skipped:
            logger.warning("%s: %d malformed rows left out", shown(rows.path), rows.skipped)
        sources[split] = Source(
            shown_path(rows.path),
            len(rows.lines),
            rows.skipped,
            unlabelled=len(rows.labels) - len(rows.labelled()),
            empty=sum(any(not text.strip() for text in texts) for texts in rows.texts),
            notes=rows.notes,
        )
    return Data(task, datasets.pop("train", None), datasets, sources)


def _subset(rows: Dataset, limit: int | None, seed: int) -> Dataset:
    if limit is None or limit >= len(rows):
        return rows
    chosen = np.random.default_rng(seed).permutation(len(rows))[:limit]
    return rows.select(np.sort(chosen))
