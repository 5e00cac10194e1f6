"""Rows in memory as a table: a `datasets.Dataset`, a data frame, an Arrow table, or plain lists."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparseq.errors import InputError
from sparseq.reading import brief
from sparseq.tasks.arrow_rows import records_of
from sparseq.tasks.files import OPTIONS
from sparseq.tasks.table import Record, Table

TAKEN = "a datasets.Dataset, a data frame, an Arrow table, a dict of columns or a list of dicts"


@dataclass(frozen=True)
class InMemory:
    """Rows in memory, and what they are called in messages: "the argument train"."""

    rows: Any
    name: str


def table_of(source: InMemory) -> Table:
    """The rows as a table, each counted from 1.

    Labels of a `ClassLabel` are replaced by their names; -1, as the hub's test sets have, is no label.

    Raises InputError for anything else than what `TAKEN` says, for several splits at once, and for columns of different
    lengths.
    """
    import pyarrow as pa  # type: ignore[import-untyped]

    rows, path = source.rows, Path(source.name)
    if isinstance(rows, Mapping) and hasattr(rows, "column_names"):  # a DatasetDict
        splits = ", ".join(map(str, rows))
        raise InputError(
            f"{path} holds several splits ({splits}): give all of them as the argument data, or one of them here"
        )
    try:
        if hasattr(rows, "with_format") and hasattr(rows, "num_rows"):
            found = rows.with_format("arrow")[:]
        elif isinstance(rows, Sequence) and not isinstance(rows, str | bytes):
            found = pa.Table.from_pylist(list(rows))
        elif isinstance(rows, Mapping) or hasattr(rows, "__arrow_c_stream__") or hasattr(rows, "__dataframe__"):
            found = pa.table(rows)
        else:
            raise InputError(f"{path} is of type {type(rows).__name__}: expected {TAKEN}")
    except (pa.ArrowException, AttributeError, TypeError, ValueError) as error:
        raise InputError(f"{path} cannot be read as a table ({brief(error)}): expected {TAKEN}") from error
    classes = _class_names(rows)

    def records() -> Iterator[Record]:
        for number, fields in records_of(path, found.to_batches()):
            yield number, _Named(fields, classes)

    return Table(path, tuple(map(str, found.column_names)), records(), unit="row", options=OPTIONS)


def class_names(rows: Any, column: str) -> tuple[str, ...] | None:
    """The names of the classes of a `Dataset`'s column, in the order of their numbers; None if it has none."""
    names = getattr((getattr(rows, "features", None) or {}).get(column), "names", None)
    return tuple(names) if names else None


def _class_names(rows: Any) -> dict[int, tuple[str, ...]]:
    """By the position of the column."""
    features = getattr(rows, "features", None) or {}
    found = {place: class_names(rows, name) for place, name in enumerate(features)}
    return {place: names for place, names in found.items() if names}


class _Named(Sequence[Any]):
    """One row, with the names of classes for their numbers."""

    def __init__(self, fields: Sequence[Any], classes: Mapping[int, tuple[str, ...]]) -> None:
        self.fields, self.classes = fields, classes

    def __len__(self) -> int:
        return len(self.fields)

    def __getitem__(self, index: Any) -> Any:
        value, names = self.fields[index], self.classes.get(index, ())
        if names and isinstance(value, int):
            return names[value] if 0 <= value < len(names) else None if value == -1 else value
        return value
