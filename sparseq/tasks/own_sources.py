"""The source of own rows: files, rows in memory, or a data set; never two of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

from sparseq.dataset_name import TRAIN_SPLIT, VALIDATION_SPLIT, DatasetName
from sparseq.errors import InputError
from sparseq.paths import expanded
from sparseq.tasks.files import open_table
from sparseq.tasks.in_memory import InMemory, table_of
from sparseq.tasks.named_dataset import read_dataset
from sparseq.tasks.splits import choose_splits
from sparseq.tasks.table import Table, shown_path

OwnSource = str | PathLike[str] | InMemory | None
"""A file, rows in memory, or none."""


@dataclass(frozen=True)
class OwnSources:
    """The sources of the training and the validation rows. origin: see `Data.origin`."""

    train: OwnSource = None
    validation: OwnSource = None
    origin: dict[str, str] = field(default_factory=dict)


def own_sources(
    *,
    train_file: str | PathLike[str] | None,
    validation_file: str | PathLike[str] | None,
    train: Any,
    validation: Any,
    dataset: str | None,
    data: Any,
    train_split: str,
    validation_split: str,
    with_train: bool,
) -> OwnSources:
    """The sources among the arguments of `load_data`; reads a data set.

    with_train: False leaves out the training split of a data set, which need not exist. Raises InputError for two
    sources, for names of splits without a data set, and for a data set that cannot be read.
    """
    rows_and_files = {
        "train rows": train,
        "validation rows": validation,
        f"the file {train_file}": train_file,
        f"the file {validation_file}": validation_file,
    }
    given = [name for name, value in rows_and_files.items() if value is not None]
    if dataset is not None and data is not None:
        raise InputError(f"the argument data and --dataset {dataset} are both given: give one of them")
    if dataset is not None or data is not None:
        whole = "the argument data" if dataset is None else f"--dataset {dataset}"
        if given:
            raise InputError(f"{whole} and {given[0]} are both given: all rows come from one of them")
        wanted = {"train": train_split} if with_train else {}
        return _of_dataset(dataset, data, {**wanted, "validation": validation_split})
    if (train_split, validation_split) != (TRAIN_SPLIT, VALIDATION_SPLIT):
        raise InputError("--train-split and --validation-split name splits of a data set: give --dataset too")
    for argument, rows, path in (("train", train, train_file), ("validation", validation, validation_file)):
        if rows is not None and path is not None:
            raise InputError(f"{argument} rows and the file {path} are both given: give one of them")
    return OwnSources(
        train_file if train is None else InMemory(train, "the argument train"),
        validation_file if validation is None else InMemory(validation, "the argument validation"),
    )


def _of_dataset(dataset: str | None, data: Any, wanted: Mapping[str, str]) -> OwnSources:
    if dataset is None:
        if not isinstance(data, Mapping):
            raise InputError(
                f"the argument data is of type {type(data).__name__}: expected a datasets.DatasetDict, or a dict of "
                "the splits' rows"
            )
        splits = {str(name): rows for name, rows in data.items()}
        chosen = choose_splits(splits, wanted, "the argument data")
        return OwnSources(chosen.get("train"), chosen["validation"])
    name = DatasetName.parse(dataset)
    splits, commit = read_dataset(name)
    origin = {"name": name.place, "config": name.config, "revision": commit or name.revision}
    chosen = choose_splits(splits, wanted, _shown(name))
    known = {key: value for key, value in origin.items() if value is not None}
    return OwnSources(chosen.get("train"), chosen["validation"], known)


def split_of(dataset: str, split: str) -> InMemory:
    """One split of a data set, or a part of one. Raises InputError like `own_sources`."""
    name = DatasetName.parse(dataset)
    return choose_splits(read_dataset(name)[0], {"predictions": split}, _shown(name))["predictions"]


def _shown(name: DatasetName) -> str:
    """A data set for messages: a folder relative to the current one if it is inside it."""
    if not name.is_folder:
        return str(name)
    return str(DatasetName(shown_path(expanded(name.place)), name.config, is_folder=True))


def open_own(source: OwnSource) -> Table:
    """The rows as a table; see `open_table` and `table_of`."""
    if isinstance(source, InMemory):
        return table_of(source)
    assert source is not None
    return open_table(expanded(source))
