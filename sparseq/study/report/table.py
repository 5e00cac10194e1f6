"""Tables as data: columns with units, rows of numbers and text, and the same table as CSV.

A number that is missing is None. It is written as an empty cell in CSV and as "-" elsewhere, never as zero.
"""

import csv
import io
import math
from dataclasses import dataclass
from typing import Any

from sparseq.terminal import shown

MISSING = "-"
LONGEST = 300
"""Characters of a text from the study, such as a name or a reason, that are written at most."""

_FORMULA = ("=", "+", "-", "@")


@dataclass(frozen=True)
class Noted:
    """A number with something to say about it.

    mark: shown beside the number, such as "(3 of 8)", or in its place if it is None. note: in CSV alone.
    """

    value: float | None
    mark: str = ""
    note: str = ""


Cell = str | float | int | bool | None | Noted


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        name: the heading.
        unit: such as "MB", or empty.
        digits: decimals of its numbers on the page; None for text.
        noted: whether CSV has another column, "<name> note", for what is noted.
        on_page: False if it is only in CSV.
    """

    name: str
    unit: str = ""
    digits: int | None = None
    noted: bool = False
    on_page: bool = True

    @property
    def heading(self) -> str:
        return f"{self.name} ({self.unit})" if self.unit else self.name

    @property
    def is_text(self) -> bool:
        return self.digits is None

    def text(self, cell: Cell) -> str:
        """A cell as it is shown: rounded, with its mark, and `MISSING` for None."""
        if isinstance(cell, Noted):
            if cell.value is None and cell.mark:
                return shown(cell.mark, limit=LONGEST)
            return " ".join(part for part in (self.text(cell.value), shown(cell.mark, limit=LONGEST)) if part)
        if cell is None or (isinstance(cell, float) and not math.isfinite(cell)):
            return MISSING
        if isinstance(cell, bool):
            return "yes" if cell else "no"
        if isinstance(cell, str) or self.digits is None:
            return shown(cell, limit=LONGEST)
        text = f"{cell:,.{self.digits}f}"
        # What is not zero is not shown as zero.
        return f"{cell:.2g}" if cell and not text.strip("-0.,") else text


@dataclass(frozen=True)
class Table:
    """A table of the report.

    Attributes:
        name: of its CSV file, without ending: lowercase letters, digits and dashes.
        title: what it shows.
        columns, rows: one cell per column in every row.
        about: how its numbers are defined, in sentences.
        on_page: False if it is only written as CSV.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    about: str = ""
    on_page: bool = True

    @property
    def shown_columns(self) -> list[Column]:
        """Those on the page."""
        return [column for column in self.columns if column.on_page]

    def texts(self) -> list[list[str]]:
        """The rows as they are shown: of each, the cells of `shown_columns`."""
        return [
            [column.text(cell) for column, cell in zip(self.columns, row, strict=True) if column.on_page]
            for row in self.rows
        ]

    def column(self, name: str) -> list[Cell]:
        """The cells of a column; of `Noted` cells, their values."""
        number = [column.name for column in self.columns].index(name)
        return [row[number].value if isinstance(row[number], Noted) else row[number] for row in self.rows]  # type: ignore[union-attr]

    def as_csv(self) -> str:
        """The table with full precision.

        Text that a spreadsheet would take for a formula begins with an apostrophe.
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        headings = [[c.heading, f"{c.name} note"] if c.noted else [c.heading] for c in self.columns]
        writer.writerow([_plain(heading) for pair in headings for heading in pair])
        for row in self.rows:
            line: list[Any] = []
            for column, cell in zip(self.columns, row, strict=True):
                noted = cell if isinstance(cell, Noted) else Noted(None)
                line.append(_plain(noted.value if isinstance(cell, Noted) else cell))
                if column.noted:
                    line.append(_plain("; ".join(part for part in (noted.mark, noted.note) if part)))
            writer.writerow(line)
        return text.getvalue()


def _plain(cell: Any) -> Any:
    if cell is None or (isinstance(cell, float) and not math.isfinite(cell)):
        return ""
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, str):
        text = shown(cell, limit=LONGEST)
        return f"'{text}" if text.startswith(_FORMULA) else text
    return cell
