"""Reading rows from JSON: one object per line (JSON Lines), or one array of objects."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sparseq.errors import InputError
from sparseq.reading import brief, json_array, lines_of, parse_json
from sparseq.tasks.table import Record, Table

_EXPECTED = 'expected one JSON object on each line, such as {"text": ..., "label": ...}, or an array of such objects'


def read_json_rows(path: Path, text: str) -> Table:
    """The table in a text of JSON; its columns are the names in any of its objects, in order of first occurrence.

    Raises:
        InputError: not JSON, or not objects; the message names the line.
    """
    objects = list(_array(path, text) if text.lstrip().startswith("[") else _lines(path, text))
    names = tuple(dict.fromkeys(name for _, values in objects for name in values))
    if not names:
        raise InputError(f"{path} holds no rows of data: {_EXPECTED}")

    def records() -> Iterator[Record]:
        for line, values in objects:
            yield line, [values.get(name) for name in names]

    return Table(path, tuple(name.strip() for name in names), records())


def _array(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        for line, value in json_array(text):
            yield line, _checked(path, line, value)
    except json.JSONDecodeError as error:
        raise InputError(f"line {error.lineno} of {path} is not JSON ({brief(error)}): {_EXPECTED}") from error
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{path} cannot be read ({brief(error)}): {_EXPECTED}") from error


def _lines(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, part in enumerate(lines_of(text), 1):
        if not part.strip():
            continue
        try:
            value = parse_json(part)
        except ValueError as error:
            raise InputError(f"line {line} of {path} is not JSON ({brief(error)}): {_EXPECTED}") from error
        yield line, _checked(path, line, value)


def _checked(path: Path, line: int, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"line {line} of {path} is no JSON object: {_EXPECTED}")
    if value and all(isinstance(part, list | dict) for part in value.values()):
        raise InputError(f"line {line} of {path} holds whole columns or nested tables: {_EXPECTED}")
    return value
