"""A table of rows from a file of any kind, and the selection of texts and labels from it."""

from __future__ import annotations

import difflib
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from sparseq.errors import InputError
from sparseq_kernels.untrusted import quoted

Record = tuple[int, Sequence[Any]]
"""The position of a row (see `Table.unit`), and its fields in the order of the table's columns."""

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
"""A number as files write it."""


@dataclass
class Rows:
    """The selected columns of one file.

    Attributes:
        path: the file.
        lines: the position of each row, in the file's `unit`.
        texts: the one or two strings of each row.
        labels: each row's label as written; None if it has none.
        skipped: malformed rows that were left out.
        unit: what `lines` counts, "line" or "row".
        notes: other findings about the file, as sentences without a full stop.
    """

    path: Path
    lines: list[int] = field(default_factory=list)
    texts: list[tuple[str, ...]] = field(default_factory=list)
    labels: list[str | None] = field(default_factory=list)
    skipped: int = 0
    unit: str = "line"
    notes: tuple[str, ...] = ()

    def place(self, row: int) -> str:
        """The position of a row for a message: "line 7 of train.csv"."""
        return f"{self.unit} {self.lines[row]} of {self.path}"

    def labelled(self) -> list[tuple[int, str]]:
        """The rows that have a label: (row, label)."""
        return [(row, label) for row, label in enumerate(self.labels) if label is not None]


@dataclass
class Table:
    """A file whose header was read and whose rows are read later (once: `select` consumes them).

    Attributes:
        path: the file.
        columns: their names, without spaces around them.
        records: the rows.
        count_errors: lines of the rows that were left out, once all rows are read.
        unit: what the positions count: lines from 1, as in an editor, or rows from 1 if a file has no lines.
        notes: other findings about the file.
        options: the command-line options that name the "text" and the "label" columns, if there are any.
    """

    path: Path
    columns: tuple[str, ...]
    records: Iterator[Record]
    count_errors: list[int] = field(default_factory=list)
    unit: str = "line"
    notes: tuple[str, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)

    def index(self, column: str, option: str = "") -> int:
        """The position of `column`. Raises InputError if it is missing or occurs twice.

        option: the option that names another column.
        """
        if self.columns.count(column) != 1:
            what = "twice" if column in self.columns else "missing"
            way_out = f"; name the right one with {option}" if option and what == "missing" else ""
            raise InputError(f"column {column!r} is {what} in {self.path}: {self.described(column)}{way_out}")
        return self.columns.index(column)

    def described(self, wanted: str = "") -> str:
        """The columns, for a message, with a suggestion for `wanted` and a note if there seems to be no header."""
        if any(NUMBER.fullmatch(name) or name.count(" ") > 3 for name in self.columns):
            shown = quoted(", ".join(self.columns))
            return f"its first line must name the columns, such as text and label, and reads {shown}"
        folded = {name.casefold(): name for name in self.columns}
        close = difflib.get_close_matches(wanted.casefold()[:100], folded, n=1)
        hint = f" (did you mean {folded[close[0]]!r}?)" if close and wanted not in self.columns else ""
        return f"its columns are {name_list(self.columns)}{hint}"

    def select(
        self,
        text_columns: Sequence[str],
        label_column: str | None,
        keep: Callable[[Sequence[Any]], bool] | None = None,
        *,
        allow_unlabelled: bool = False,
    ) -> Rows:
        """The texts and labels of all rows (of those that `keep` accepts, if given).

        Args:
            text_columns: one or two.
            label_column: None if no labels are wanted.
            keep: which rows.
            allow_unlabelled: the label column may be missing, and rows may have no label.

        Raises:
            InputError: a missing column, an empty label, a text that is not a string, no rows at all.
        """
        text_indices = [self.index(column, self.options.get("text", "")) for column in text_columns]
        if label_column is not None and allow_unlabelled and label_column not in self.columns:
            label_column = None
        label_index = None if label_column is None else self.index(label_column, self.options.get("label", ""))
        rows = Rows(self.path, unit=self.unit)
        for line, record in self.records:
            if keep is not None and not keep(record):
                continue
            texts = tuple(record[index] for index in text_indices)
            for column, text in zip(text_columns, texts, strict=True):
                if not isinstance(text, str):
                    found = "no value" if text is None else quoted(text)
                    raise InputError(
                        f"{self.unit} {line} of {self.path} has {found} in column {column!r}: expected a text"
                    )
            rows.lines.append(line)
            rows.texts.append(texts)
            label = None if label_index is None else self._label(record[label_index], label_column, line)
            if label is None and label_index is not None and not allow_unlabelled:
                raise InputError(
                    f"{self.unit} {line} of {self.path} has no label in column {label_column!r}: every row needs one"
                )
            rows.labels.append(label)
        if not rows.lines:
            needed = "a text" if label_column is None else "a text and a label"
            raise InputError(f"{self.path} holds no rows of data: expected at least one row with {needed}")
        rows.skipped, rows.notes = len(self.count_errors), self.notes
        return rows

    def _label(self, value: Any, column: str | None, line: int) -> str | None:
        """A label as text; None if there is none; truth values as JSON writes them."""
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return None  # NaN marks a missing number in Parquet's columns and in the JSON of pandas and Python
        if not isinstance(value, str | bool | int | float | Decimal):
            raise InputError(
                f"{self.unit} {line} of {self.path} has {quoted(value)} in {column!r}: expected one number or name"
            )
        try:
            return (str(value).lower() if isinstance(value, bool) else str(value)).strip() or None
        except ValueError:  # an integer with more digits than Python converts
            raise InputError(
                f"{self.unit} {line} of {self.path} has a number of too many digits in {column!r}"
            ) from None


def name_list(columns: Sequence[str]) -> str:
    """Names of columns for a message: the first few of many, and the beginning of a long one."""
    names = [(name if len(name) <= 60 else name[:57] + "...") or "''" for name in columns[:20]]
    return ", ".join(names) + (", ..." if len(columns) > 20 else "")


def shown_path(path: Path) -> str:
    """A path for messages: relative to the current folder if it is inside it, complete otherwise."""
    try:
        return str(path.relative_to(os.getcwd()))
    except (ValueError, OSError):
        return str(path)
