"""The rows of Arrow's record batches, as Parquet files and data frames give them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

from sparseq.errors import InputError
from sparseq.reading import brief
from sparseq.tasks.table import Record


def records_of(path: Path, batches: Iterable[Any]) -> Iterator[Record]:
    """The rows of record batches, counted from 1.

    path: the file, for messages. Raises InputError for values that Python cannot represent, once they are used.
    """
    begin = 1
    for batch in batches:
        columns = _Columns(path, begin, batch)
        for row in range(batch.num_rows):
            yield begin + row, _Fields(columns, row)
        begin += batch.num_rows


class _Columns:
    """The columns of one batch, each converted to Python values when it is first used.

    A file may have columns that Python cannot represent, such as times in the year 100,000, and that are not used.
    """

    def __init__(self, path: Path, begin: int, batch: Any) -> None:
        self.path, self.begin, self.batch = path, begin, batch
        self.made: dict[int, list[Any]] = {}

    def column(self, index: int) -> list[Any]:
        import pyarrow as pa  # type: ignore[import-untyped]

        if index not in self.made:
            try:
                self.made[index] = self.batch.column(index).to_pylist()
            except UnicodeDecodeError as error:
                raise InputError(
                    f"{self.path} holds text that is not UTF-8, in or after row {self.begin}: write it as UTF-8"
                ) from error
            except (pa.ArrowException, ValueError, OverflowError) as error:
                name = self.batch.schema.names[index]
                raise InputError(
                    f"column {name!r} of {self.path} cannot be read, in or after row {self.begin} ({brief(error)}): "
                    "write texts as strings, and labels as strings or numbers"
                ) from error
        return self.made[index]


class _Fields(Sequence[Any]):
    """One row of a batch."""

    def __init__(self, columns: _Columns, row: int) -> None:
        self.columns, self.row = columns, row

    def __len__(self) -> int:
        return int(self.columns.batch.num_columns)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self[place] for place in range(len(self))[index]]
        return self.columns.column(range(len(self))[index])[self.row]
