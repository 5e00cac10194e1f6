"""Rows to predict: texts of files without labels, and GLUE's submission files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from sparseq.errors import InputError
from sparseq.paths import expanded
from sparseq.tasks.files import open_glue_tsv, open_table
from sparseq.tasks.glue import INDEX_COLUMNS, LAYOUTS, find_test_files, is_test_file
from sparseq.tasks.in_memory import table_of
from sparseq.tasks.load import choose_text_columns
from sparseq.tasks.own_sources import split_of
from sparseq.tasks.spec import GLUE, Task
from sparseq.tasks.table import Rows, Table

_NAMED = ("mnli", "qnli", "rte")
"""The tasks whose submissions contain the names of classes; the others contain numbers."""

_STSB_DECIMALS = 3

_HUB_INDEX = "idx"
"""The name of the index in the hub's `nyu-mll/glue`, which own files may come from."""

_DIAGNOSTIC = ("diagnostic", "AX")

TEST_ROWS = {
    "CoLA": 1063, "SST-2": 1821, "MRPC": 1725, "QQP": 390_965, "STS-B": 1379, "MNLI-m": 9796, "MNLI-mm": 9847,
    "QNLI": 5463, "RTE": 3000, "WNLI": 146, "AX": 1104,
}  # fmt: skip
"""Rows of each of GLUE's test sets, by the name of its submission: those of the hub's `nyu-mll/glue`."""


def read_unlabelled(task: Task, file: str | PathLike[str], text_columns: Sequence[str] | None = None) -> Rows:
    """The texts of a file, in order; a column of labels is ignored.

    Args:
        task: determines how many texts a row has and, by default, their columns.
        file: an own file, see `sparseq.tasks.files.open_table`, or one of GLUE's test files: a `.tsv` whose first
            column is "index" or "id", with the task's columns, in which quotes are plain characters.
        text_columns: the text columns of an own file.

    Returns:
        Rows whose `labels` are the values of a column "index", "id" or "idx"; all None if there is no such column, or
            if
        a row has no value in it.

    Raises:
        InputError: see `open_table`; a missing column; no rows.
    """
    path = expanded(file)
    if task.name in GLUE and text_columns is None and path.name.lower().endswith((".tsv", ".tsv.gz")):
        table = open_glue_tsv(path)
        if is_test_file(task, table):
            return table.select(LAYOUTS[task.name].text_columns, table.columns[0], allow_unlabelled=True)
    return _select(task, open_table(path), text_columns)


def read_unlabelled_split(task: Task, dataset: str, split: str, text_columns: Sequence[str] | None = None) -> Rows:
    """The texts of a split of a data set, like `read_unlabelled`. Raises InputError like `own_sources`."""
    return _select(task, table_of(split_of(dataset, split)), text_columns)


def _select(task: Task, table: Table, text_columns: Sequence[str] | None) -> Rows:
    columns = choose_text_columns(text_columns, task, table)
    names = (*INDEX_COLUMNS, _HUB_INDEX)
    index = next((name for name in names if table.columns.count(name) == 1 and name not in columns), None)
    rows = table.select(columns, index, allow_unlabelled=True)
    if None in rows.labels:  # row numbers between names that may be numbers themselves would be ambiguous
        rows.labels = [None] * len(rows.labels)
    return rows


def read_glue_tests(task: Task, data_dir: str | PathLike[str]) -> list[Rows]:
    """The task's test rows in GLUE's classic layout; two sets for MNLI. Raises InputError like `read_unlabelled`."""
    if task.name not in GLUE:
        raise InputError(f"task {task.name!r} is none of GLUE's, which --data-dir is for: give --file")
    return [read_unlabelled(GLUE[task.name], path) for path in find_test_files(task, expanded(data_dir))]


def submission_name(task: Task, path: Path) -> str:
    """GLUE's name for the submission of a task's test file: "SST-2.tsv", "MNLI-mm.tsv".

    Raises:
        InputError: the task is none of GLUE's, or the file's name does not tell which of MNLI's two test sets it is.
    """
    if task.name not in GLUE:
        raise InputError(f"GLUE takes no predictions for task {task.name!r}: its tasks are {', '.join(GLUE)}")
    layout = LAYOUTS[task.name]
    if task.name == "mnli" and path.name.partition(".")[0] in _DIAGNOSTIC:
        return "AX.tsv"  # the diagnostic set, which is predicted by MNLI's model
    if len(layout.test_files) == 1:
        return f"{layout.folder}.tsv"
    found = set(re.findall(r"(?<![a-z])(?:mis)?matched", path.name))
    if len(found) != 1:
        raise InputError(f"{path} may be either of {' and '.join(layout.test_files)}: give it that name")
    return f"{layout.folder}-{'mm' if found == {'mismatched'} else 'm'}.tsv"


def submission_value(task: Task, label: str, value: float) -> str:
    """One prediction in GLUE's form: a name for MNLI, QNLI and RTE, a number from 0 to 5 for STS-B, else 0 or 1.

    Args:
        task: one of GLUE's, perhaps with own files.
        label: the name of the predicted class.
        value: the predicted number, for regression.
    """
    if task.is_regression:
        low, high = GLUE[task.name].label_range or (value, value)
        return f"{min(max(value, low), high):.{_STSB_DECIMALS}f}"
    if task.name in _NAMED:
        return label
    names = GLUE[task.name].label_names or ()
    return str(names.index(label))
