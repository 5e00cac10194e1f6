"""GLUE's classic folder layout: one folder per task, with the original files and columns."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sparseq.errors import InputError
from sparseq.paths import names_in
from sparseq.reading import lines_of, read_text
from sparseq.tasks.files import open_glue_tsv
from sparseq.tasks.spec import Task, plain_name
from sparseq.tasks.table import Rows, Table


@dataclass(frozen=True)
class Layout:
    """The layout of one task's folder: its name, the columns of its files, and its validation and test files.

    Test files have a header in every task, and an index in place of the label.
    """

    folder: str
    text_columns: tuple[str, ...]
    label_column: str = "label"
    headerless: tuple[str, ...] | None = None
    skip_bad: bool = False
    validation_files: tuple[str, ...] = ("dev.tsv",)
    test_files: tuple[str, ...] = ("test.tsv",)


TRAIN_FILE = "train.tsv"
INDEX_COLUMNS = ("index", "id")
"""The name of the first column of a test file; "id" for QQP."""

LAYOUTS: dict[str, Layout] = {
    "cola": Layout("CoLA", ("sentence",), headerless=("source", "label", "mark", "sentence")),
    "sst2": Layout("SST-2", ("sentence",)),
    "mrpc": Layout("MRPC", ("#1 String", "#2 String"), "Quality"),
    "qqp": Layout("QQP", ("question1", "question2"), "is_duplicate", skip_bad=True),
    "stsb": Layout("STS-B", ("sentence1", "sentence2"), "score"),
    "mnli": Layout(
        "MNLI",
        ("sentence1", "sentence2"),
        "gold_label",
        validation_files=("dev_matched.tsv", "dev_mismatched.tsv"),
        test_files=("test_matched.tsv", "test_mismatched.tsv"),
    ),
    "qnli": Layout("QNLI", ("question", "sentence")),
    "rte": Layout("RTE", ("sentence1", "sentence2")),
    "wnli": Layout("WNLI", ("sentence1", "sentence2")),
}

# Microsoft's original MRPC, from which GLUE's train.tsv and dev.tsv were made: its training file includes the
# development rows, and dev_ids.tsv lists them.
_MRPC_ORIGINAL = "msr_paraphrase_train.txt"
_MRPC_DEV_IDS = "dev_ids.tsv"
_MRPC_IDS = ("#1 ID", "#2 ID")


def find_folder(task: Task, data_dir: Path, *, test: bool = False) -> Path:
    """The task's folder: inside `data_dir` under its usual name in any spelling, or `data_dir` itself.

    test: look for the test files.

    Raises:
        InputError: no such folder, or it has neither the task's folder nor the task's files.
    """
    if not os.path.isdir(data_dir):
        raise InputError(f"there is no data folder {data_dir}: give the folder that holds GLUE's task folders")
    layout = LAYOUTS[task.name]
    folders = [data_dir / name for name in names_in(data_dir) if os.path.isdir(data_dir / name)]
    named = [child for child in folders if plain_name(child.name) == task.name]
    if named:
        return next((child for child in named if child.name == layout.folder), named[0])
    files = layout.test_files if test else (TRAIN_FILE, *layout.validation_files)
    if any(os.path.isfile(data_dir / name) for name in (*files, *(() if test else (_MRPC_ORIGINAL,)))):
        return data_dir
    found = ", ".join(child.name for child in folders[:12]) or "no folders"
    raise InputError(
        f"{data_dir} holds neither a folder {layout.folder!r} nor the files {' and '.join(files)} of task "
        f"{task.name!r}: found {found}"
    )


def files_of(task: Task) -> tuple[str, ...]:
    """The names of the files in the task's folder that training and validation rows are read from."""
    original = (_MRPC_ORIGINAL, _MRPC_DEV_IDS) if task.name == "mrpc" else ()
    return (TRAIN_FILE, *LAYOUTS[task.name].validation_files, *original)


def read_folder(task: Task, data_dir: Path, *, with_train: bool) -> dict[str, Rows]:
    """The task's splits by name: "train" (if requested) and each of `task.validation_splits`.

    Raises:
        InputError: a missing folder, file or column, or a bad row.
    """
    layout, folder = LAYOUTS[task.name], find_folder(task, data_dir)
    sources: dict[str, Callable[[], Rows]] = {}
    if with_train:
        sources["train"] = partial(_read, layout, folder / TRAIN_FILE)
    for split, name in zip(task.validation_splits, layout.validation_files, strict=True):
        sources[split] = partial(_read, layout, folder / name)
    if task.name == "mrpc" and os.path.isfile(folder / _MRPC_ORIGINAL):
        if not os.path.isfile(folder / TRAIN_FILE) and with_train:
            sources["train"] = partial(_read_original_mrpc, layout, folder, dev=False)
        if not os.path.isfile(folder / layout.validation_files[0]):
            sources[task.validation_splits[0]] = partial(_read_original_mrpc, layout, folder, dev=True)
    return {split: read() for split, read in sources.items()}


def find_test_files(task: Task, data_dir: Path) -> list[Path]:
    """The task's test files; two for MNLI. Raises InputError if the folder or a file is missing."""
    folder = find_folder(task, data_dir, test=True)
    return [_existing(LAYOUTS[task.name], folder / name) for name in LAYOUTS[task.name].test_files]


def is_test_file(task: Task, table: Table) -> bool:
    """Whether a table is one of GLUE's own test files of the task: its first column is the index."""
    return table.columns[0] in INDEX_COLUMNS and set(LAYOUTS[task.name].text_columns) <= set(table.columns)


def _existing(layout: Layout, path: Path) -> Path:
    if not os.path.isfile(path):
        raise InputError(f"{path.name} is missing in {path.parent}: expected GLUE's own {layout.folder} files there")
    return path


def _read(layout: Layout, path: Path) -> Rows:
    table = open_glue_tsv(_existing(layout, path), layout.headerless, skip_bad=layout.skip_bad)
    return table.select(layout.text_columns, layout.label_column)


def _read_original_mrpc(layout: Layout, folder: Path, *, dev: bool) -> Rows:
    """The rows of the original MRPC file that are GLUE's development rows, or all others."""
    dev_ids = _mrpc_dev_ids(folder, layout.validation_files[0])
    table = open_glue_tsv(folder / _MRPC_ORIGINAL)
    first, second = (table.index(column) for column in _MRPC_IDS)
    return table.select(
        layout.text_columns,
        layout.label_column,
        keep=lambda record: ((record[first], record[second]) in dev_ids) == dev,
    )


def _mrpc_dev_ids(folder: Path, dev_file: str) -> set[tuple[Any, ...]]:
    """The pairs of sentence ids of GLUE's development rows, from dev_ids.tsv or from dev.tsv itself."""
    if os.path.isfile(folder / _MRPC_DEV_IDS):
        lines = lines_of(read_text(folder / _MRPC_DEV_IDS))
        return {tuple(line.strip().split("\t")) for line in lines if line.strip()}
    if not os.path.isfile(folder / dev_file):
        raise InputError(
            f"{dev_file} is missing in {folder}: beside {_MRPC_ORIGINAL} give GLUE's {dev_file} or {_MRPC_DEV_IDS}, "
            "which tells the development rows from the training rows"
        )
    table = open_glue_tsv(folder / dev_file)
    first, second = (table.index(column) for column in _MRPC_IDS)
    return {(record[first], record[second]) for _, record in table.records}
