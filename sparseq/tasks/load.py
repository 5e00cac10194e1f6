"""One call that gives any task's data in one form, wherever it comes from."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from sparseq.errors import InputError
from sparseq.paths import expanded
from sparseq.tasks.files import Rows, Table, open_table
from sparseq.tasks.glue import read_folder
from sparseq.tasks.labels import infer_task, parse_labels
from sparseq.tasks.spec import CUSTOM, GLUE, Task, get_task
from sparseq.terminal import shown

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)

HUB_DATASET = "nyu-mll/glue"
TEXTS = ("text_a", "text_b")
"""What the text columns are called in every loaded dataset; the label's column is "label"."""

# GLUE's own column names and two more, pairs first: a file with "question" and "sentence" is about both
_USUAL_COLUMNS = sorted(
    {*(task.columns for task in GLUE.values()), TEXTS, ("text",)}, key=lambda names: (-len(names), names)
)


@dataclass(frozen=True)
class Data:
    """A task and its rows.

    Attributes:
        task: the task; for own files with what was inferred from them.
        train: the training rows, None where they were not asked for.
        validations: the rows of each of `task.validation_splits`.
        skipped: how many malformed rows were left out, by split (GLUE's QQP files have some).

    The datasets' columns are "text_a", "text_b" for tasks on pairs (strings), and "label" (int64, float64 for
    regression).
    """

    task: Task
    train: Dataset | None
    validations: dict[str, Dataset]
    skipped: dict[str, int] = field(default_factory=dict)


def load_data(
    task: str | Task,
    *,
    data_dir: str | PathLike[str] | None = None,
    train_file: str | PathLike[str] | None = None,
    validation_file: str | PathLike[str] | None = None,
    text_columns: Sequence[str] | None = None,
    label_column: str | None = None,
    max_train_rows: int | None = None,
    max_validation_rows: int | None = None,
    seed: int = 0,
    with_train: bool = True,
) -> Data:
    """The task's training and validation rows, from own files, a folder, or the hub's `nyu-mll/glue`.

    Args:
        task: a GLUE task's name in any spelling, "custom" for own files, or a Task (for instance a custom one read
            back from a finished run, whose label numbers must be kept).
        data_dir: GLUE's classic folder layout: the folder of the task folders, or the task's own folder.
        train_file, validation_file: own `.csv`, `.tsv` or `.jsonl` files. With a GLUE task's name its label names,
            columns and metrics hold; with "custom" the labels say what it is: whole numbers are classes, numbers with
            a decimal point make a regression task, names are numbered in sorted order.
        text_columns, label_column: columns of the own files; by default the task's, and for a custom task the usual
            names ("sentence", "text", "sentence1" and "sentence2", ...) and "label".
        max_train_rows: a random subset of that many training rows, chosen by `seed`, in the order of the file; a
            smaller subset of the same seed is part of the larger.
        max_validation_rows: the same for each validation split, but independent of `seed`, so that runs with
            different seeds are scored on the same rows.
        seed: chooses the training subset.
        with_train: False leaves the training rows out, and they need not exist.

    Raises:
        InputError: an unknown task; sources that contradict each other; a missing folder, file or column; empty data;
            a label out of range; a malformed row; a hub that cannot be reached.
    """
    for what, rows in (("max_train_rows", max_train_rows), ("max_validation_rows", max_validation_rows)):
        if rows is not None and rows < 1:
            raise InputError(f"{what} is {rows}: expected a whole number of at least 1, or none for all rows")
    own_files = train_file is not None or validation_file is not None
    if own_files and data_dir is not None:
        raise InputError(
            "data_dir and own files are both given: read GLUE's folders (--data-dir) or your own files "
            "(--train-file, --validation-file), not both"
        )
    if not own_files and (text_columns is not None or label_column is not None):
        raise InputError(
            "text_columns and label_column name columns of own files: give --train-file and --validation-file too"
        )
    known: Task | None = None
    if isinstance(task, Task):
        known = task
    elif task.lower() != CUSTOM:
        known = get_task(task)
    if own_files:
        data = _from_files(known, train_file, validation_file, text_columns, label_column, with_train=with_train)
    elif known is None or known.name not in GLUE:
        raise InputError(f"task {CUSTOM!r} has no data of its own: give --train-file and --validation-file")
    elif data_dir is not None:
        official = GLUE[known.name]  # `known` may come from a run on own files, with their columns and one split
        data = _from_rows(official, read_folder(official, expanded(data_dir), with_train=with_train))
    else:
        data = _from_hub(GLUE[known.name], with_train=with_train)
    return replace(
        data,
        train=None if data.train is None else _subset(data.train, max_train_rows, seed),
        validations={split: _subset(rows, max_validation_rows, 0) for split, rows in data.validations.items()},
    )


def _from_files(
    task: Task | None,
    train_file: str | PathLike[str] | None,
    validation_file: str | PathLike[str] | None,
    text_columns: Sequence[str] | None,
    label_column: str | None,
    *,
    with_train: bool,
) -> Data:
    if validation_file is None or (train_file is None and with_train):
        missing = "--validation-file" if validation_file is None else "--train-file"
        raise InputError(f"own files need {missing} too: give both a file to train on and a file to validate on")
    paths = {"validation": expanded(validation_file)}
    # a custom task's labels are numbered by its training file: without a Task, that file is read all the same
    if train_file is not None and (with_train or task is None):
        paths = {"train": expanded(train_file), **paths}
    tables = {split: open_table(path) for split, path in paths.items()}
    first = next(iter(tables.values()))
    columns = _text_columns(text_columns, task, first)
    label_column = label_column or (task.label_column if task else "label")
    if label_column in columns:
        raise InputError(f"column {label_column!r} is named both as text and as label: they must differ")
    rows = {split: table.select(columns, label_column) for split, table in tables.items()}
    if task is None:
        task = infer_task(next(iter(rows.values())), columns, label_column)
    task = replace(task, columns=columns, label_column=label_column, validation_splits=("validation",))
    return _from_rows(task, rows if with_train else {"validation": rows["validation"]})


def _text_columns(text_columns: Sequence[str] | None, task: Task | None, table: Table) -> tuple[str, ...]:
    """The text columns that were named, or the task's, or for a custom task the usual ones that the file has."""
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
        f"{table.path} has none of the usual text columns: name one or two of its columns with --text-columns "
        f"(found {', '.join(table.columns)})"
    )


def _from_rows(task: Task, splits: dict[str, Rows]) -> Data:
    from datasets import Dataset, Features, Value

    kind = Value("float64" if task.is_regression else "int64")
    names = TEXTS[: len(task.columns)]
    features = Features({**{name: Value("string") for name in names}, "label": kind})
    datasets = {}
    for split, rows in splits.items():
        columns: dict[str, Iterable[Any]] = dict(zip(names, map(list, zip(*rows.texts, strict=True)), strict=True))
        datasets[split] = Dataset.from_dict({**columns, "label": parse_labels(task, rows)}, features=features)
        if rows.skipped:
            logger.warning("%s: %d malformed rows left out", shown(rows.path), rows.skipped)
    skipped = {split: rows.skipped for split, rows in splits.items() if rows.skipped}
    return Data(task, datasets.pop("train", None), datasets, skipped)


def _from_hub(task: Task, *, with_train: bool) -> Data:
    from datasets import Value, load_dataset

    datasets = {}
    for split in (("train",) if with_train else ()) + task.validation_splits:
        try:
            rows = load_dataset(HUB_DATASET, task.name, split=split)
        except Exception as error:  # the hub's clients raise errors of several libraries with no common base
            reason = (str(error).splitlines() or [""])[0][:200]
            raise InputError(
                f"task {task.name!r} could not be read from the hub's {HUB_DATASET} "
                f"({type(error).__name__}: {reason}): "
                "give --data-dir with GLUE's classic folders or your own --train-file and --validation-file, or set "
                "HF_HUB_OFFLINE=1 where the dataset is in the local cache"
            ) from error
        wanted = dict(zip((*task.columns, task.label_column), (*TEXTS[: len(task.columns)], "label"), strict=True))
        missing = [column for column in wanted if column not in rows.column_names]
        if missing:
            raise InputError(
                f"column {missing[0]!r} is missing in the hub's {HUB_DATASET} {task.name} {split}: "
                f"its columns are {', '.join(rows.column_names)}"
            )
        rows = rows.select_columns(list(wanted)).rename_columns({old: new for old, new in wanted.items() if old != new})
        rows = rows.cast_column("label", Value("float64" if task.is_regression else "int64"))
        _check_hub_labels(task, split, rows)
        datasets[split] = rows
    return Data(task, datasets.pop("train", None), datasets)


def _check_hub_labels(task: Task, split: str, rows: Dataset) -> None:
    labels = np.asarray(rows["label"], dtype=np.float64)
    if labels.size == 0:
        raise InputError(f"the hub's {HUB_DATASET} {task.name} {split} has no rows: its local copy may be damaged")
    low, high = task.label_range or (0.0, task.num_labels - 1.0)
    bad = np.flatnonzero(~((labels >= low) & (labels <= high)))
    if bad.size:
        raise InputError(
            f"label {labels[bad[0]]:g} in row {bad[0]} of the hub's {HUB_DATASET} {task.name} {split} is out of range: "
            f"expected {low:g} to {high:g}"
        )


def _subset(rows: Dataset, limit: int | None, seed: int) -> Dataset:
    if limit is None or limit >= len(rows):
        return rows
    chosen = np.random.default_rng(seed).permutation(len(rows))[:limit]
    return rows.select(np.sort(chosen))
