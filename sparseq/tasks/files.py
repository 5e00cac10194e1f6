"""Reading tables of text: the user's own CSV, TSV and JSON Lines files, and GLUE's unquoted TSV files.

Every error names the file and the line, counted from 1 as an editor does.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sparseq.errors import InputError
from sparseq.reading import brief, parse_json, read_text
from sparseq_kernels.untrusted import quoted

Record = tuple[int, Sequence[Any]]
"""A line number and the fields of that line, in the order of the table's columns."""

SUFFIXES = (".csv", ".tsv", ".jsonl", ".json")
"""The kinds of own file; `.json` is read as JSON Lines too."""


@dataclass
class Rows:
    """The selected columns of one file: texts[i] holds one or two strings, labels[i] the label as written."""

    path: Path
    lines: list[int] = field(default_factory=list)
    texts: list[tuple[str, ...]] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    skipped: int = 0


@dataclass
class Table:
    """A file whose header is read and whose rows are still to come (once: `select` uses them up)."""

    path: Path
    columns: tuple[str, ...]
    records: Iterator[Record]
    count_errors: list[int] = field(default_factory=list)

    def index(self, column: str) -> int:
        """Where `column` stands; InputError when it is missing or there twice."""
        if self.columns.count(column) != 1:
            what = "twice" if column in self.columns else "missing"
            raise InputError(f"column {column!r} is {what} in {self.path}: its columns are {', '.join(self.columns)}")
        return self.columns.index(column)

    def select(
        self, text_columns: Sequence[str], label_column: str, keep: Callable[[Sequence[Any]], bool] | None = None
    ) -> Rows:
        """The texts and labels of all rows (of those that `keep` accepts, when given).

        Raises:
            InputError: a missing column, an empty label, a text that is not a string, no rows at all.
        """
        rows = Rows(self.path)
        text_indices, label_index = [self.index(column) for column in text_columns], self.index(label_column)
        for line, record in self.records:
            if keep is not None and not keep(record):
                continue
            texts = tuple(record[index] for index in text_indices)
            for column, text in zip(text_columns, texts, strict=True):
                if not isinstance(text, str):
                    found = "no value" if text is None else quoted(text)
                    raise InputError(f"line {line} of {self.path} has {found} in column {column!r}: expected a text")
            rows.lines.append(line)
            rows.texts.append(texts)
            rows.labels.append(self._label(record[label_index], label_column, line))
        if not rows.lines:
            raise InputError(f"{self.path} holds no rows of data: expected at least one row with a text and a label")
        rows.skipped = len(self.count_errors)
        return rows

    def _label(self, value: Any, column: str, line: int) -> str:
        if isinstance(value, list | dict):
            raise InputError(
                f"line {line} of {self.path} has {quoted(value)} in {column!r}: expected one number or name"
            )
        label = "" if value is None else str(int(value) if isinstance(value, bool) else value).strip()
        if not label:
            raise InputError(f"line {line} of {self.path} has no label in column {column!r}: every row needs one")
        return label


def open_table(path: Path) -> Table:
    """The user's own file as a table, by its suffix: `.csv`, `.tsv` (both with a header and the usual double quotes),
    `.jsonl` or `.json` (one JSON object a line, columns from the first).

    Raises:
        InputError: no such file, unknown suffix, empty file; and while rows are read, bad quotes, a wrong number of
            fields, invalid JSON.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"{path} has the suffix {suffix!r}: expected one of {', '.join(SUFFIXES)}")
    text = read_text(path)
    if not text.strip():
        raise InputError(f"{path} is empty: expected rows with a text and a label")
    if suffix in (".jsonl", ".json"):
        return _json_table(path, text)
    records = _quoted_records(path, text, "," if suffix == ".csv" else "\t")
    _, header = next(records)
    return Table(path, tuple(header), records)


def _quoted_records(path: Path, text: str, delimiter: str) -> Iterator[Record]:
    # strict: a stray quote must be an error, for the reader would otherwise silently glue lines together
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    count = 0
    try:
        for fields in reader:
            if not fields:
                continue
            count = count or len(fields)
            if len(fields) != count:
                raise InputError(
                    f"line {reader.line_num} of {path} has {len(fields)} fields where the header has {count}: "
                    f"a {'comma' if delimiter == ',' else 'tab'} inside a text needs double quotes around the text"
                )
            yield reader.line_num, fields
    except csv.Error as error:
        raise InputError(
            f"line {reader.line_num} of {path} cannot be read ({error}): a text that begins with a double quote "
            "must end with one, and quotes inside it must be doubled"
        ) from error


def _json_table(path: Path, text: str) -> Table:
    numbered = ((line, json_line) for line, json_line in enumerate(text.split("\n"), 1) if json_line.strip())
    objects = ((line, _json_object(path, line, json_line)) for line, json_line in numbered)
    first = next(objects)
    columns = tuple(first[1])

    def records() -> Iterator[Record]:
        yield first[0], [first[1][column] for column in columns]
        for line, values in objects:
            yield line, [values.get(column) for column in columns]

    return Table(path, columns, records())


def _json_object(path: Path, line: int, text: str) -> dict[str, Any]:
    try:
        value = parse_json(text)
    except ValueError as error:
        raise InputError(
            f"line {line} of {path} is not JSON ({brief(error)}): expected one JSON object on each line"
        ) from error
    if not isinstance(value, dict):
        raise InputError(f'line {line} of {path} is no JSON object: expected one such as {{"text": ..., "label": ...}}')
    return value


def open_glue_tsv(path: Path, columns: Sequence[str] | None = None, *, skip_bad: bool = False) -> Table:
    """One of GLUE's own files as a table: tab-separated, quotes are plain characters.

    Args:
        path: the file.
        columns: names for the columns of a file without a header (CoLA).
        skip_bad: leave out and count rows with a wrong number of fields, as GLUE's users do with QQP, where a few
            questions hold line breaks; otherwise such a row is an InputError.
    """
    lines = read_text(path).split("\n")
    start = 0
    if columns is None:
        columns, start = lines[0].rstrip("\r").split("\t"), 1
    header, errors = tuple(columns), list[int]()

    def records() -> Iterator[Record]:
        for line, text in enumerate(lines[start:], start + 1):
            if not text.strip():
                continue
            fields = text.rstrip("\r").split("\t")
            if len(fields) == len(header):
                yield line, fields
            elif skip_bad:
                errors.append(line)
            else:
                raise InputError(
                    f"line {line} of {path} has {len(fields)} tab-separated fields: expected {len(header)} "
                    f"({', '.join(header)})"
                )

    return Table(path, header, records(), errors)
