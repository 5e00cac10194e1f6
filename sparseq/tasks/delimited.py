"""Reading CSV and similar files: a header, double quotes where necessary, and commas, semicolons, tabs or pipes.

The format is that of RFC 4180, with any of three line ends. Python's csv module parses it in strict mode. It cannot
detect a stray double quote at the beginning of a text, which merges all rows up to the next quote into one field: see
`_check_glued`.
"""

from __future__ import annotations

import contextlib
import csv
import io
import re
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from sparseq.errors import InputError
from sparseq.tasks.table import NUMBER, Record, Table
from sparseq_kernels.untrusted import quoted

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "pipes"}
_EACH = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a pipe"}

_SAMPLE = 10_000  # rows that are used to characterize a column

_EXCEL_TELLS = re.compile(r"(\"?)sep=(.)\1(?=[\r\n])")
"""The first line that Excel may write, which names the separator."""

_OTHER = re.compile(r"(?<=\w)(\^|~|:|\x01|\x1f| {2,})(?=\w)")
"""Separators in headers that are not among `SEPARATORS`."""

_TAKEN = f"what is read are {', '.join(SEPARATORS.values())}"

_limit_lock = threading.Lock()


def read_delimited(path: Path, text: str, usual: str) -> Table:
    """The table in a text, with all rows read and checked.

    Args:
        path: for messages.
        text: a file's whole text, with its line ends.
        usual: the separator that the file's name suggests; another one of `SEPARATORS` is used if the header has more
            of it.

    Raises:
        InputError: a quote that is never closed or that merges rows, text after a closing quote, or a wrong number of
            fields. The message names the line where the row begins.
    """
    if _header(text).lstrip().startswith(("{", "[")):
        raise InputError(f"{path} looks like JSON: give it the suffix .jsonl or .json")
    if told := _EXCEL_TELLS.match(text):
        separator, text = told[2], text[told.end() :]  # its line end stays, so that line numbers are right
        if separator not in SEPARATORS:
            raise InputError(f"{path} is separated by {separator!r}: {_TAKEN}")
    else:
        separator = _separator(text, usual)
    records, spans = _parse(path, text, separator)
    if not records:
        raise InputError(f"{path} is empty: expected a line of column names, then rows")
    (_, header), *rows = records
    if len(header) == 1:
        _check_single(path, header[0].strip(), rows)
    else:
        _check_headers(path, header, rows)
        if spans:
            _check_glued(path, rows, spans, separator, list(io.StringIO(text, newline="")))
    notes = () if separator == usual else (f"separated by {SEPARATORS[separator]}",)
    return Table(path, tuple(name.strip() for name in header), iter(rows), notes=notes)


def _header(text: str) -> str:
    return next((line for line in io.StringIO(text, newline="") if line.strip()), "")


def _separator(text: str, usual: str) -> str:
    header = _header(text)
    with _unlimited_fields():
        counts = {mark: len(next(csv.reader([header], delimiter=mark))) for mark in SEPARATORS}
    return max((usual, *SEPARATORS), key=lambda mark: counts[mark])  # the usual one comes first, and wins ties


def _parse(path: Path, text: str, separator: str) -> tuple[list[tuple[int, list[str]]], list[tuple[int, int]]]:
    """(records: first line and fields; spans: first and last line of the records over several lines)."""
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=separator, strict=True, skipinitialspace=_spaced(text, separator)
    )
    records: list[tuple[int, list[str]]] = []
    spans = []
    first, count = 1, 0
    blank: list[int] = []  # empty lines are rows of a table with one column, except at the end
    with _unlimited_fields():
        try:
            for fields in reader:
                begin, first = first, reader.line_num + 1
                if not fields or (len(fields) == 1 and count > 1 and not fields[0].strip()):
                    blank += [begin] * (count == 1)
                    continue
                count = count or len(fields)
                if len(fields) != count:
                    raise InputError(
                        f"line {begin} of {path} has {len(fields)} fields where the header has {count}: "
                        + _miscounted(fields, records[0][1], separator)
                    )
                records += [(line, [""]) for line in blank]
                blank.clear()
                records.append((begin, fields))
                if reader.line_num > begin:
                    spans.append((begin, reader.line_num))
        except csv.Error as error:
            until = f", read on to line {reader.line_num}" if reader.line_num > first else ""
            raise InputError(
                f"line {first} of {path} cannot be read ({error}{until}): a text that begins with a double quote must "
                "end with one, and quotes inside it must be doubled"
            ) from error
    return records, spans


def _spaced(text: str, separator: str) -> bool:
    """Whether each separator of the header is followed by a space that is not part of a field: `id, text, label`."""
    gaps = _header(text).rstrip().split(separator)[1:]
    return separator != "\t" and bool(gaps) and all(gap.startswith(" ") for gap in gaps)


def _miscounted(fields: Sequence[str], header: Sequence[str], separator: str) -> str:
    """The likely reason why a line has another number of fields than the header, if one is apparent."""
    each = _EACH[separator]
    if len(header) == 1:
        return f"the first line must name the columns, and reads {quoted(header[0])}"
    if len(fields) == len(header) + 1 and not fields[-1].strip():
        return f"the line ends in {each}, and the header does not"
    if any(field[:1].isspace() and field.lstrip().startswith('"') for field in fields):
        return f"a double quote that begins a text must stand right after {each}, without a space"
    if any(field.endswith("\\") for field in fields):
        return "a double quote inside a text must be doubled, and not have a backslash before it"
    return f"{each} inside a text needs double quotes around the text"


def _check_single(path: Path, name: str, rows: Sequence[Record]) -> None:
    """Refuses a header that is a single field, like each row, only because another separator is used."""
    found = _OTHER.search(name)
    if found and rows and all(fields[0].count(found[1]) == name.count(found[1]) for _, fields in rows):
        shown = "spaces" if found[1].isspace() else repr(found[1])
        raise InputError(f"{path} seems to be separated by {shown}, its first line reads {quoted(name)}: {_TAKEN}")


def _check_headers(path: Path, header: Sequence[str], rows: Sequence[Record]) -> None:
    """Refuses a row that repeats the header, which happens when files are concatenated."""
    names = [name.strip() for name in header]
    for line, fields in rows:
        if fields[-1].strip() == names[-1] and [field.strip(" \t\ufeff") for field in fields] == names:
            raise InputError(
                f"line {line} of {path} repeats the line of column names, as where files are joined: take it out"
            )


@contextlib.contextmanager
def _unlimited_fields() -> Iterator[None]:
    """Lifts csv's limit of 131,072 characters per field, which is global; the text is in memory already."""
    with _limit_lock:
        before = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # a C long, of 32 bits on Windows
        try:
            yield
        finally:
            csv.field_size_limit(before)


def _check_glued(
    path: Path, rows: Sequence[Record], spans: Sequence[tuple[int, int]], separator: str, lines: Sequence[str]
) -> None:
    """Refuses a field over several lines if most of its inner lines look like rows of this table.

    A text may contain line breaks, and lines with separators. Rows are recognized by their number of fields and by how
    these look compared with other rows: a number where all have numbers, a known name where names recur, one word where
    all are one word, no space after the separator where none has one.
    """
    sample = [fields for _, fields in rows[:_SAMPLE]]
    looks = [_Look([value for value in column if not _over_lines(value)]) for column in zip(*sample, strict=True)]
    cut = partial(_fields, separator=separator, spaced=_spaced("".join(lines), separator), count=len(looks))

    for begin, end in spans:
        ends = [cut(lines[begin - 1], quote=-1), cut(lines[end - 1], quote=1)]
        inner = [cut(line) for line in lines[begin : end - 1] if line.strip()]
        whole = [fields for fields in ends + inner if len(fields) == len(looks)]
        counts = [Counter(column) for column in zip(*whole, strict=True)]
        alike = [len(fields) == len(looks) and all(map(_Look.fits, looks, fields, counts)) for fields in inner or ends]
        if sum(alike) * 2 > len(inner) if inner else all(alike):
            raise InputError(
                f"line {begin} of {path} begins a quoted text that runs to line {end}, and the lines in between look "
                "like rows: a double quote that begins a text must be doubled, with double quotes around the text"
                if inner
                else f"line {begin} of {path} begins a quoted text that ends in line {end}, and both lines look like "
                "rows: a double quote that begins a text must be doubled, with double quotes around the text"
            )


def _over_lines(value: str) -> bool:
    return "\n" in value or "\r" in value


def _fields(line: str, separator: str, spaced: bool, count: int, quote: int = 0) -> list[str]:
    """The fields of a line parsed by itself, without quotes around them.

    quote: -1 if one of them begins with a stray quote, 1 if one ends with it. The text at that quote may contain
    separators: fields beyond `count` are counted as part of it.
    """
    fields = line.rstrip("\r\n").split(separator)
    if spaced:
        fields = [field.lstrip(" ") for field in fields]
    over = len(fields) - count
    if quote and over > 0:
        stray = [field.startswith('"') if quote < 0 else field.endswith('"') for field in fields]
        if any(stray):
            first = stray.index(True) if quote < 0 else len(stray) - 1 - stray[::-1].index(True) - over
            if first >= 0:
                fields[first : first + over + 1] = [separator.join(fields[first : first + over + 1])]
    return [field.strip('"') for field in fields]


class _Look:
    """What the values of one column have in common, if there are any."""

    def __init__(self, values: Sequence[str]) -> None:
        self.any = bool(values)
        self.numbers = self.any and all(NUMBER.fullmatch(value.strip()) for value in values)
        self.spaced = any(value[:1].isspace() for value in values)
        self.one_word = self.any and all(len(value.split()) <= 1 for value in values)
        self.empty = any(not value.strip() for value in values)
        self.recurs = len(set(values)) * 2 <= len(values)
        self.known = set(values) if self.recurs else set()

    def fits(self, value: str, counts: Mapping[str, int]) -> bool:
        """Whether a value may belong to this column.

        counts: how often each value occurs in the lines in question.
        """
        if not self.any:
            return bool(value.strip())
        if not value.strip():
            return self.empty
        if self.numbers and NUMBER.fullmatch(value.strip()) is None:
            return False
        if (value[:1].isspace() and not self.spaced) or (self.one_word and len(value.split()) > 1):
            return False
        # In a file sorted by class, all rows of a class may be among the lines in question.
        return not self.recurs or value in self.known or counts[value] > 1
