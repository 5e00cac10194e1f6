"""Reading files given by users: regular files of bounded size, strict UTF-8, and JSON of bounded depth.

A path can name anything: a named pipe or a device, which can block a reader forever, or a file larger than memory.
Quotations in messages are bounded too, because a few bytes of YAML aliases can describe more text than fits into
memory.
"""

import contextlib
import dataclasses
import errno
import json
import math
import os
import re
import stat
import types
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, Union, get_args, get_origin, get_type_hints

from sparseq.errors import InputError
from sparseq.terminal import shown
from sparseq_kernels.untrusted import quoted

SMALL = 16 * 2**20
"""Bytes at most of a file that a program wrote for itself: metrics, markers, states."""

LARGE = 4 * 2**30
"""Bytes at most of a table of data, which is read whole."""

DIGITS = 20
"""Digits at most of an integer that describes a model: more than any size needs, and few enough to be read at once."""

_CHUNK = 16 * 2**20

_JSON_SPACE = re.compile(r"[ \t\r\n]*")
_LINE_END = re.compile(r"\r\n|\n|\r")

_KINDS = (
    (stat.S_ISFIFO, "it is a named pipe"),
    (stat.S_ISSOCK, "it is a socket"),
    (stat.S_ISCHR, "it is a device"),
    (stat.S_ISBLK, "it is a device"),
)


@contextlib.contextmanager
def opened(path: str | Path) -> Iterator[BinaryIO]:
    """Opens a regular file for reading, unbuffered.

    The file type is checked before the file is opened, because opening a device can have effects. The file is opened
    without waiting for a writer, in case a named pipe has replaced it. Raises InputError if there is no such file, if
    it is not a regular file, or if it cannot be read.
    """
    try:
        _check_regular(path, os.stat(path).st_mode)
        file = open(path, "rb", buffering=0, opener=_without_waiting)  # noqa: SIM115 (closed below)
    except FileNotFoundError as error:
        raise InputError(f"there is no file {path}: give the path of an existing file") from error
    except InputError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        raise _unreadable(path, str(getattr(error, "strerror", None) or error)) from error
    with file:
        _check_regular(path, os.fstat(file.fileno()).st_mode)
        yield file


def read_bytes(path: str | Path, limit: int = LARGE) -> bytes:
    """A regular file's content. Raises InputError if it has more than `limit` bytes, and like `opened`."""
    with opened(path) as file:
        if os.fstat(file.fileno()).st_size > limit:
            raise _too_large(path, limit)
        content = bytearray()  # the file may have grown, and files in /proc have size 0
        try:
            while chunk := file.read(min(limit + 1 - len(content), _CHUNK)):
                content += chunk
        except OSError as error:
            raise _unreadable(path, str(error.strerror or error)) from error
        except MemoryError as error:
            raise _unreadable(path, "it does not fit into memory") from error
    if len(content) > limit:
        raise _too_large(path, limit)
    return bytes(content)


def read_text(path: str | Path, limit: int = LARGE) -> str:
    """A regular file's text, with its line ends and without a byte-order mark.

    Raises InputError like `read_bytes`, and if the file is not UTF-8 text.
    """
    return decode(read_bytes(path, limit), path)


def decode(content: bytes, where: object, encoding: str = "utf-8") -> str:
    """Decodes bytes to text without a byte-order mark.

    Raises InputError, naming `where` and the line (counted from 1), for a byte that is invalid in the encoding.
    """
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        # The text before the invalid byte is valid, so its lines can be counted.
        line = len(line_ends(error.object[: error.start].decode(encoding, "ignore"))) + 1
        name = encoding.upper()
        raise InputError(
            f"line {line} of {where} is not {name} text (byte 0x{error.object[error.start]:02x} at offset "
            f"{error.start}): save it as {name}"
        ) from error
    return text.lstrip("\ufeff")  # joined files and some editors leave two


def line_ends(text: str) -> list[int]:
    """The positions at which line ends begin in the text; a line ends in LF, CR LF, or CR (old Mac files)."""
    return [found.start() for found in _LINE_END.finditer(text)]


def lines_of(text: str) -> list[str]:
    """The text's lines without their ends (LF, CR LF or CR); an end at the very end of the text starts no new line."""
    lines = _LINE_END.split(text)
    return lines[:-1] if not lines[-1] else lines


def read_json(path: str | Path, limit: int = SMALL) -> Any:
    """The JSON value in a file. Raises InputError like `read_text`, and like `parse_json`."""
    text = read_text(path, limit)
    try:
        return parse_json(text)
    except ValueError as error:
        raise InputError(f"cannot read {path} as JSON ({brief(error)})") from error


def parse_json(text: str | bytes, *, strict: bool = False) -> Any:
    """Parses a JSON text; bytes must be UTF-8.

    strict: also refuse NaN, infinity and integers of more than `DIGITS` digits. Metrics and rows of data may contain
    them; a description of a model never does unless it was changed. Raises ValueError for text that is not JSON, is
    nested too deeply, has a name twice in one object, or contains half of a surrogate pair, which no encoding can
    represent.
    """
    numbers: dict[str, Any] = {"parse_int": _whole, "parse_float": _real, "parse_constant": _refused} if strict else {}
    try:
        # As text: given bytes, json.loads would also take UTF-16.
        text = text.decode("utf-8") if isinstance(text, bytes) else text
        value = json.loads(text, object_pairs_hook=_once, **numbers)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("it holds half of a surrogate pair") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return value


def json_array(text: str) -> Iterator[tuple[int, Any]]:
    """The elements of a JSON text that is an array, each with the line that it begins in, counted from 1.

    Raises ValueError like `parse_json`; `lineno` of a JSONDecodeError counts from the beginning of the text.
    """
    decoder = json.JSONDecoder(object_pairs_hook=_once)
    position, line, counted = _skip_space(text, 0) + 1, 1, 0
    if not text.startswith("[", position - 1):
        raise json.JSONDecodeError("no array begins here", text, position - 1)
    position = _skip_space(text, position)
    if text.startswith("]", position):
        return _nothing_after(text, position)
    while True:
        line, counted = line + len(line_ends(text[counted:position])), position
        try:
            value, end = decoder.raw_decode(text, position)
            if "\\u" in text[position:end]:
                json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError(f"the element in line {line} holds half of a surrogate pair") from None
        except RecursionError:
            raise ValueError(f"the element in line {line} is nested too deeply") from None
        except json.JSONDecodeError:
            raise
        except ValueError as error:
            raise ValueError(f"{error}, in line {line}") from None
        yield line, value
        position = _skip_space(text, end)
        if text.startswith("]", position):
            return _nothing_after(text, position)
        if not text.startswith(",", position):
            raise json.JSONDecodeError("expected a comma or the array's end", text, position)
        position = _skip_space(text, position + 1)


def _nothing_after(text: str, position: int) -> None:
    end = _skip_space(text, position + 1)
    if end < len(text):
        raise json.JSONDecodeError("more follows the array's end", text, end)


def _skip_space(text: str, position: int) -> int:
    found = _JSON_SPACE.match(text, position)
    return found.end() if found else position


def strict_json(text: str | bytes, where: str) -> Any:
    """Parses a JSON text that describes a model. Raises InputError, naming `where`; see `parse_json`."""
    try:
        return parse_json(text, strict=True)
    except ValueError as error:
        raise InputError(f"{where} cannot be read as JSON ({brief(error)})") from error


T = TypeVar("T")


def build(kind: type[T], values: Any) -> T:
    """Builds the dataclass `kind` from a JSON object's values; lists become tuples.

    Raises ValueError, naming the field, if the value is not an object, if a field has no value, if a field is unknown,
    or if a value does not have the field's annotated type. Dataclasses inside are built in the same way.
    """
    if not isinstance(values, dict):
        raise ValueError(f"an object is needed, not {quoted(values)}")
    fields: tuple[Any, ...] = dataclasses.fields(kind)  # type: ignore[arg-type]
    hints = get_type_hints(kind)
    empty = dataclasses.MISSING
    needed = [field.name for field in fields if field.default is empty and field.default_factory is empty]
    if missing := [name for name in needed if name not in values]:
        raise ValueError(f"{missing[0]} is missing")
    if unknown := [name for name in values if name not in hints]:
        raise ValueError(f"{quoted(unknown[0])} is unknown")
    return kind(**{name: _as(hints[name], value, name) for name, value in values.items()})


def _as(hint: Any, value: Any, name: str) -> Any:
    wrong = ValueError(f"{name} is {quoted(value)}")
    origin, parts = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if dataclasses.is_dataclass(hint):
        try:
            return build(hint, value)  # type: ignore[arg-type]
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    if origin in (Union, types.UnionType):
        if value is None and type(None) in parts:
            return None
        (hint,) = (part for part in parts if part is not type(None))
        return _as(hint, value, name)
    if origin is dict:
        if not isinstance(value, dict):
            raise wrong
        return {key: _as(parts[1], part, f"{name}.{key}") for key, part in value.items()}
    if origin is tuple:
        if not isinstance(value, (list, tuple)) or (parts[-1] is not ... and len(value) != len(parts)):
            raise wrong
        hints = [parts[0]] * len(value) if parts[-1] is ... else parts
        return tuple(_as(hint, part, name) for hint, part in zip(hints, value, strict=True))
    if isinstance(value, bool) is not (hint is bool) or not isinstance(value, (int, float) if hint is float else hint):
        raise wrong
    return value


def brief(error: BaseException) -> str:
    """An exception's message for a sentence: one line of bounded length, without control characters."""
    text = getattr(error, "strerror", None) or str(error)[:1000].strip() or type(error).__name__
    text = shown(" ".join(text.split()))
    return text if len(text) <= 200 else text[:197] + "..."


def _once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the name {quoted(name)} stands twice in one object")
        found[name] = value
    return found


def _whole(digits: str) -> int:
    if len(digits) > DIGITS:
        raise ValueError(f"an integer of {len(digits)} digits")
    return int(digits)


def _real(digits: str) -> float:
    if not math.isfinite(value := float(digits)):
        raise ValueError("a number beyond the range of a float")
    return value


def _refused(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _check_regular(path: str | Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        odd = next((what for test, what in _KINDS if test(mode)), os.strerror(errno.EISDIR))
        raise _unreadable(path, odd)


def _unreadable(path: str | Path, why: str) -> InputError:
    return InputError(f"{path} cannot be read ({why}): give the path of a readable regular file")


def _too_large(path: str | Path, limit: int) -> InputError:
    unit, name = (2**20, "MiB") if limit >= 2**20 else (2**10, "KiB")
    return InputError(f"{path} holds more than {limit // unit:,} {name}, the most that is read of such a file")
