"""Files that anyone may have written: opened only if regular, read only up to a bound, parsed without surprises."""

from __future__ import annotations

import contextlib
import json
import math
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from sparseq.errors import InputError

__all__ = ["opened", "read_text", "reason", "strict_json"]

# Digits of an integer: more than any size needs, and few enough to be read in no time.
_DIGITS = 20


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The file, unbuffered, for reading. InputError unless it is a regular file that may be read.

    It is asked what it is before it is opened: opening a FIFO waits for a writer, and a device may act on it.
    """
    try:
        kind = os.stat(path).st_mode
        if not stat.S_ISREG(kind):
            raise InputError(f"{path} is {_kind(kind)}, and must be a regular file")
        file = path.open("rb", buffering=0)
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} cannot be read ({reason(error)})") from error
    with file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise InputError(f"{path} must be a regular file")
        yield file


def read_text(path: Path, limit: int) -> bytes:
    """All of a file of at most `limit` bytes. InputError: longer, or see `opened`."""
    with opened(path) as file:
        try:
            data = bytearray()
            while chunk := file.read(limit + 1 - len(data)):
                data += chunk
        except OSError as error:
            raise InputError(f"{path} cannot be read ({reason(error)})") from error
    if len(data) > limit:
        raise InputError(f"{path} is longer than {limit:,} bytes, which such a file never is")
    return bytes(data)


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


def reason(error: BaseException) -> str:
    """The first line of an error, cut short, to be named in a sentence."""
    text = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
    return ascii(text.splitlines()[0][:100])[1:-1]


def _kind(mode: int) -> str:
    names = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}
    return names.get(stat.S_IFMT(mode), "a device")
