"""Reading rows from Parquet, by pyarrow, which comes with `datasets`."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

from sparseq.errors import InputError
from sparseq.reading import LARGE, brief
from sparseq.tasks.arrow_rows import records_of
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
        try:
            yield from records_of(path, file.iter_batches())
        except (pa.ArrowException, OSError) as error:
            raise _damaged(path, error) from error

    return Table(path, tuple(name.strip() for name in names), records(), unit="row")


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(f"{path} cannot be read as Parquet ({brief(error)}): write it anew")
