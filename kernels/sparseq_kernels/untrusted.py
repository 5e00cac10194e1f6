"""Checks of values that a file states, before anything is made of them: each is refused in one sentence.

`where` names the value in that sentence, such as "layer 'encoder.0' in model.safetensors: bits".
"""

import reprlib
from collections.abc import Collection, Sequence
from typing import Any

from .errors import InputError

QUOTED = 120
"""Characters of a value at most that a message quotes: names of layers are rarely longer."""


def fields(value: object, names: Collection[str], where: str) -> dict[str, Any]:
    """`value`, which must be a dict with exactly these keys."""
    if not isinstance(value, dict):
        raise InputError(f"{where} is {quoted(value)}, and must be an object with {', '.join(names)}")
    for name in names:
        if name not in value:
            raise InputError(f"{where} has no {name!r}, and must have {', '.join(names)}")
    for name in value:
        if name not in names:
            raise InputError(f"{where} has {quoted(name)}, which is none of {', '.join(names)}")
    return value


def integer(value: object, low: int, high: int, where: str) -> int:
    """`value`, which must be an int (a bool is none) from `low` to `high`, both included."""
    if type(value) is not int or not low <= value <= high:
        raise InputError(f"{where} is {quoted(value)}, and must be a whole number from {low} to {high}")
    return value


def pair(value: object, low: int, high: int, where: str) -> tuple[int, int]:
    """`value`, which must be a list of two ints from `low` to `high`."""
    if not isinstance(value, list) or len(value) != 2:
        raise InputError(f"{where} is {quoted(value)}, and must be a list of two whole numbers")
    return integer(value[0], low, high, f"{where}[0]"), integer(value[1], low, high, f"{where}[1]")


def number(value: object, low: float, high: float, where: str) -> float:
    """`value`, which must be a finite int or float from `low` to `high`, both included."""
    if type(value) not in (int, float) or not low <= value <= high:  # type: ignore[operator]
        raise InputError(f"{where} is {quoted(value)}, and must be a number from {low:g} to {high:g}")
    return float(value)  # type: ignore[arg-type]


def flag(value: object, where: str) -> bool:
    """`value`, which must be True or False."""
    if not isinstance(value, bool):
        raise InputError(f"{where} is {quoted(value)}, and must be true or false")
    return value


def one_of(value: object, choices: Sequence[Any], where: str) -> Any:
    """`value`, which must be one of `choices`, and of the same type: neither 8.0 nor True passes for an int."""
    if not any(type(value) is type(choice) and value == choice for choice in choices):
        raise InputError(f"{where} is {quoted(value)}, and must be one of {', '.join(map(repr, choices))}")
    return value


def quoted(value: object) -> str:
    """`repr(value)` for a message: bounded in length, depth and work, and free of control characters."""
    try:
        text = _REPR.repr(value)
    except ValueError:  # an integer of too many digits to write
        text = f"a {type(value).__name__} of too many digits"
    return text if len(text) <= QUOTED else text[: QUOTED - 3] + "..."


_REPR = reprlib.Repr()
_REPR.maxlevel, _REPR.maxstring, _REPR.maxother, _REPR.maxlong = 3, QUOTED, QUOTED, QUOTED
