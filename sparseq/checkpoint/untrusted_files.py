"""What a file says that anyone may have written: parsed without surprises, and put into messages in short."""

from __future__ import annotations

import json
import math
from typing import Any

from sparseq.errors import InputError

__all__ = ["plain", "reason", "strict_json"]

# Digits of an integer: more than any size needs, and few enough to be read in no time.
_DIGITS = 20
# Characters of a name or an error in a message.
_SHOWN = 120


def strict_json(text: bytes | str, where: str) -> Any:
    """The value of a JSON text in UTF-8. InputError: no JSON, a name twice in an object, NaN or infinity, an integer of
    more than 20 digits, or nesting deeper than Python can follow."""

    def number(digits: str) -> int:
        if len(digits) > _DIGITS:
            raise ValueError(f"an integer of {len(digits)} digits")
        return int(digits)

    def real(digits: str) -> float:
        if not math.isfinite(value := float(digits)):
            raise ValueError("a number beyond the range of a float")
        return value

    def constant(name: str) -> Any:
        raise ValueError(f"{name} is no JSON")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) != len(pairs):
            raise ValueError("a name stands twice in an object")
        return value

    try:
        # As text: given bytes, json.loads would also take UTF-16.
        text = text.decode("utf-8") if isinstance(text, bytes) else text
        return json.loads(text, parse_int=number, parse_float=real, parse_constant=constant, object_pairs_hook=once)
    except RecursionError as error:
        raise InputError(f"{where} is nested too deeply") from error
    except ValueError as error:
        raise InputError(f"{where} cannot be read as JSON ({reason(error)})") from error


def plain(name: str) -> str:
    """A name from a file, to be named in a sentence: without control characters, and cut short."""
    text = ascii(name)[1:-1]
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def reason(error: BaseException) -> str:
    """The first line of an error, cut short, to be named in a sentence."""
    text = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
    return plain(text.splitlines()[0])
