"""From labels as written in a file to the numbers a model is trained on."""

from __future__ import annotations

import math
import re

from sparseq.errors import InputError
from sparseq.tasks.files import Rows
from sparseq.tasks.spec import CUSTOM, Task

_WHOLE = re.compile(r"[+-]?\d+")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def infer_task(rows: Rows, columns: tuple[str, ...], label_column: str) -> Task:
    """The custom task that these rows are examples of.

    Whole numbers are classes and must be 0 ... n-1; numbers with a decimal point make it a regression task; anything
    else is the name of a class, numbered in sorted order and kept in `Task.label_names`.

    Raises:
        InputError: numbers and names mixed, only one class, or class numbers with gaps.
    """
    numeric = [_NUMBER.fullmatch(label) is not None for label in rows.labels]
    if any(numeric) and not all(numeric):
        rarer = sum(numeric) * 2 < len(numeric)  # True where the numbers are fewer than the names
        odd = numeric.index(rarer)
        what = "a number" if numeric[odd] else "no number"
        raise InputError(
            f"label {rows.labels[odd]!r} in line {rows.lines[odd]} of {rows.path} is {what}, unlike most: "
            f"column {label_column!r} must hold either numbers or names"
        )
    if all(numeric) and not all(_WHOLE.fullmatch(label) for label in rows.labels):
        correlations = ("pearson", "spearman")
        return Task(CUSTOM, columns, label_column, 1, metrics=correlations, score_metrics=correlations)
    distinct = set(rows.labels)
    if len(distinct) < 2:
        raise InputError(
            f"every row of {rows.path} has the label {rows.labels[0]!r}: "
            f"column {label_column!r} needs at least two classes"
        )
    if not all(numeric):
        return Task(CUSTOM, columns, label_column, len(distinct), tuple(sorted(distinct)))
    found = sorted({int(label) for label in distinct})
    if found != list(range(len(found))):
        shown = ", ".join(map(str, found[:8])) + (", ..." if len(found) > 8 else "")
        raise InputError(
            f"the classes in column {label_column!r} of {rows.path} are {shown}: whole-number labels must run from 0 "
            "without gaps (for regression, write them with a decimal point)"
        )
    return Task(CUSTOM, columns, label_column, len(found))


def parse_labels(task: Task, rows: Rows) -> list[int] | list[float]:
    """The rows' labels as class numbers 0 ... num_labels-1 (names are looked up), or as floats for regression.

    Raises:
        InputError: a label is none of the task's; the sentence names it, its line, and what is allowed.
    """
    return [_real(task, rows, row) for row in range(len(rows.labels))] if task.is_regression else _classes(task, rows)


def _classes(task: Task, rows: Rows) -> list[int]:
    known = {str(number): number for number in range(task.num_labels)}
    known.update({name: number for number, name in enumerate(task.label_names or ())})
    numbers = []
    for line, label in zip(rows.lines, rows.labels, strict=True):
        number = known.get(label)
        if number is None and _WHOLE.fullmatch(label):
            number = known.get(str(int(label)))
        if number is None:
            names = f" ({', '.join(task.label_names)})" if task.label_names else ""
            raise InputError(
                f"label {label!r} in line {line} of {rows.path} is out of range: "
                f"task {task.name!r} takes 0 to {task.num_labels - 1}{names}"
            )
        numbers.append(number)
    return numbers


def _real(task: Task, rows: Rows, row: int) -> float:
    label = rows.labels[row]
    number = float(label) if _NUMBER.fullmatch(label) else math.nan
    low, high = task.label_range or (-math.inf, math.inf)
    if not (math.isfinite(number) and low <= number <= high):
        allowed = f"a number from {low:g} to {high:g}" if task.label_range else "a finite number"
        raise InputError(
            f"label {label!r} in line {rows.lines[row]} of {rows.path} is out of range: "
            f"task {task.name!r} takes {allowed}"
        )
    return number
