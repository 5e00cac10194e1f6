"""Conversion of labels in a file to the numbers that a model is trained on."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from decimal import Decimal
from functools import lru_cache

from sparseq.errors import InputError
from sparseq.tasks.spec import CUSTOM, Task
from sparseq.tasks.table import NUMBER, Rows
from sparseq_kernels.untrusted import quoted

NO_CLASS = -100
"""The class number of a row without a label, which torch's cross-entropy ignores (`ignore_index`)."""

LARGEST = 1e12
"""The largest magnitude of a regression label. fp32 holds numbers to 3.4e38; beyond this one, the squared errors and
the squares of their gradients, summed over a model's weights, come near it."""

LABEL_KINDS = ("auto", "classes", "regression")
"""The kinds of labels that a custom task can be given; "auto" infers the kind."""

_WHOLE = re.compile(r"([+-]?\d+)(\.0*)?")
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")
_EXACT = 14  # a number of more than 15 digits with an exponent is a measurement and not a class
_DIGITS = 60  # the most characters of a number with an exponent that is parsed exactly
_MANY = 8  # classes that a message lists
_LONG = 60  # characters of a class's name that a message shows


def whole(label: str) -> int | None:
    """The whole number that a label represents; None for anything else.

    Also accepted are "1.0" and, as numpy and Parquet's decimals write it, "1.000e+00". The result is None if the
    exponent leads beyond the whole numbers that a float represents.
    """
    found = _WHOLE.fullmatch(label)
    if found is not None:
        return int(found[1]) if len(found[1]) <= 4000 else None  # Python parses no more digits
    if "e" not in label.lower() or len(label) > _DIGITS or not NUMBER.fullmatch(label):
        return None
    value = Decimal(label)
    if value.adjusted() > _EXACT or (value and value.adjusted() < 0):
        return None
    return int(value) if value == value.to_integral_value() else None


@lru_cache(maxsize=4096)  # a column of labels has few different ones
def _value(label: str) -> int | float | str:
    number = whole(label)
    if number is not None:
        return number
    return float(label) if NUMBER.fullmatch(label) else label


def infer_task(sources: Sequence[Rows], columns: tuple[str, ...], label_column: str, label_kind: str = "auto") -> Task:
    """The custom task that these rows are examples of.

    Whole numbers, also written as 1.0 or 1e0, are classes, numbered by sorted distinct value: 1 to 5 stars are five
    classes named "1" to "5". If any number is not whole, all of them make a regression task. Anything else is the name
    of a class, numbered in sorted order. `label_kind` overrides the two rules for numbers. `Task.label_names` has the
    names; it is None if the labels are 0 ... n-1 themselves.

    Args:
        sources: the rows of one file, or of more if labels are missing in the first.
        columns: the text columns.
        label_column: the label's column.
        label_kind: one of `LABEL_KINDS`. "regression" also for whole numbers; "classes" also for others.

    Raises:
        InputError: numbers and names mixed, names where numbers are required, only one class, numbers with decimal
            commas, or no labels.
    """
    found = [(rows, row, _value(label)) for rows in sources for row, label in rows.labelled()]
    if not found:
        raise InputError(f"no row of {' or '.join(str(rows.path) for rows in sources)} has a label: expected some")
    numeric = [not isinstance(value, str) for _, _, value in found]
    if any(numeric) and not all(numeric):
        rarer = sum(numeric) * 2 < len(numeric)  # True if there are fewer numbers than names
        rows, row, _ = found[numeric.index(rarer)]
        what = "a number" if rarer else "no number"
        raise InputError(
            f"label {quoted(rows.labels[row])} in {rows.place(row)} is {what}, unlike most: "
            f"column {label_column!r} must hold either numbers or names"
        )
    values = [value for _, _, value in found]
    path = sources[0].path
    if label_kind == "regression" and not all(numeric):
        rows, row, _ = found[0]
        raise InputError(
            f"label {quoted(rows.labels[row])} in {rows.place(row)} is no number, and a regression was asked for "
            f"(--label-kind): column {label_column!r} must hold numbers"
        )
    fractions = any(isinstance(value, float) for value in values)
    if label_kind == "regression" or (label_kind == "auto" and fractions):
        correlations = ("pearson", "spearman")
        return Task(CUSTOM, columns, label_column, 1, metrics=correlations, score_metrics=correlations)
    distinct = sorted(set(values))
    if len(distinct) < 2:
        rows, row, _ = found[0]
        raise InputError(
            f"every row of {path} has the label {quoted(rows.labels[row])}: "
            f"column {label_column!r} needs at least two classes"
        )
    if all(isinstance(value, str) and _DECIMAL_COMMA.fullmatch(value) for value in distinct):
        rows, row, _ = found[0]
        raise InputError(
            f"label {quoted(rows.labels[row])} in {rows.place(row)} is a number with a decimal comma, as all are: "
            "write numbers with a decimal point"
        )
    plain = distinct == list(range(len(distinct)))
    return task_of_classes(columns, label_column, tuple(map(str, distinct)), named=not plain)


def task_of_classes(columns: tuple[str, ...], label_column: str, names: tuple[str, ...], *, named: bool = True) -> Task:
    """A custom task with these classes, numbered in this order. named: False if the names are the numbers."""
    metric = "f1" if len(names) == 2 else "macro_f1"
    return Task(CUSTOM, columns, label_column, len(names), names if named else None, metrics=("accuracy", metric))


def parse_labels(task: Task, rows: Rows) -> list[int] | list[float]:
    """The rows' labels as class numbers 0 ... num_labels-1, or as floats for regression.

    The classes of a custom task are looked up by their labels in the training file: names exactly, numbers by value.
    Those of a GLUE task may be written as names or as numbers. A row without a label gets `NO_CLASS`, or NaN.

    Raises:
        InputError: a label is none of the task's; the message names it, its line, and what is allowed.
    """
    if task.is_regression:
        return [math.nan if label is None else _real(task, rows, row, label) for row, label in enumerate(rows.labels)]
    known = _known(task)
    numbers = []
    for row, label in enumerate(rows.labels):
        number = NO_CLASS if label is None else known.get(_value(label), known.get(label))
        if number is None:
            raise InputError(f"label {quoted(label)} in {rows.place(row)} is {_not_known(task, label or '')}")
        numbers.append(number)
    return numbers


def _known(task: Task) -> dict[int | float | str, int]:
    if task.label_names is None:
        return {number: number for number in range(task.num_labels)}
    if task.name == CUSTOM:
        return {_value(name): number for number, name in enumerate(task.label_names)}
    return {
        **{number: number for number in range(task.num_labels)},
        **{name: number for number, name in enumerate(task.label_names)},
    }


def _not_known(task: Task, label: str) -> str:
    if task.name != CUSTOM:
        names = f" ({', '.join(task.label_names)})" if task.label_names else ""
        what = "no class" if isinstance(_value(label), str) else "out of range"
        return f"{what}: task {task.name!r} takes 0 to {task.num_labels - 1}{names}"
    numbers = not any(isinstance(value, str) for value in _known(task))
    kind = ""
    if isinstance(_value(label), str) is numbers:
        kind = "a name, where the training rows have numbers: " if numbers else "a number, where they have names: "
    return f"{kind}none of the {task.num_labels} classes of the training rows, {listed(task)}"


def listed(task: Task) -> str:
    """A task's classes by name; the first few if there are many."""
    names = task.label_names or tuple(map(str, range(min(task.num_labels, _MANY + 1))))
    return ", ".join(map(brief_name, names[:_MANY])) + (", ..." if len(names) > _MANY else "")


def brief_name(name: str) -> str:
    """A class's name for a message; the beginning of a long one."""
    return name if len(name) <= _LONG else name[: _LONG - 3] + "..."


def _real(task: Task, rows: Rows, row: int, label: str) -> float:
    number = float(label) if NUMBER.fullmatch(label) else math.nan
    low, high = task.label_range or (-LARGEST, LARGEST)
    if low <= number <= high:
        return number
    if task.label_range:
        allowed = f"a number from {low:g} to {high:g}"
    elif math.isfinite(number):
        allowed = f"numbers of at most {LARGEST:g} in magnitude, beyond which training overflows: scale the labels"
    else:
        allowed = "a finite number"
    what = "no number" if math.isnan(number) else "out of range"
    raise InputError(f"label {quoted(label)} in {rows.place(row)} is {what}: task {task.name!r} takes {allowed}")
