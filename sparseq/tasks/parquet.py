"""Reading rows from Parquet, by pyarrow, which comes with `datasets`."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

from sparseq.errors import InputError
from sparseq.reading import LARGE, brief
from sparseq.tasks.table import Record, Table


def read_parquet(path: Path, content: bytes) -> Table:
    """The table in a Parquet file. Rows are counted from 1; there are no lines.

    Raises:
        InputError: not Parquet, damaged, or too large once decompressed.
    """
    import pyarrow as pa  # type: ignore[import-untyped]
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(io.BytesIO(content))
        size = sum(file.metadata.row_group(group).total_byte_size for group in range(file.num_row_groups))
        names = tuple(file.schema_arrow.names)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _damaged(path, error) from error
    if size > LARGE:
        raise InputError(f"{path} holds more than {LARGE // 2**20:,} MiB once decompressed, the most that is read")

    def records() -> Iterator[Record]:
        begin = 1
        try:
            for batch in file.iter_batches():
                columns = _Columns(path, begin, batch)
                for row in range(batch.num_rows):
                    yield begin + row, _Fields(columns, row)
                begin += batch.num_rows
        except (pa.ArrowException, OSError) as error:
            raise _damaged(path, error) from error

    return Table(path, tuple(name.strip() for name in names), records(), unit="row")


class _Columns:
    """The columns of one batch, each converted to Python values when it is first used.

    A file may have columns that Python cannot represent, such as times in the year 100,000, and that are not used.
    """

    def __init__(self, path: Path, begin: int, batch: Any) -> None:
        self.path, self.begin, self.batch = path, begin, batch
        self.made: dict[int, list[Any]] = {}

    def column(self, index: int) -> list[Any]:
        import pyarrow as pa

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


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(f"{path} cannot be read as Parquet ({brief(error)}): write it anew")
