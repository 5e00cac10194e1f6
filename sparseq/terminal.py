"""What the programs print: one place, through which text from files and users reaches a terminal without acting on it.

A terminal obeys control characters wherever they come from: a label can move the cursor, recolour or retitle the
window, or answer as if typed; a direction override shows text in another order than it has.
"""

import argparse
import contextlib
import json
import sys
import unicodedata
from typing import Any, NoReturn, TextIO

from sparseq.errors import InputError, MachineError

__all__ = ["LONGEST_MESSAGE", "Parser", "counted", "say", "say_error", "say_json", "shown", "write"]

LONGEST_MESSAGE = 2000
"""Characters of an error message that are printed at most."""

# Categories: controls, halves of surrogate pairs, separators of lines and of paragraphs.
_ACTING = ("Cc", "Cs", "Zl", "Zp")
# Of the invisible format characters (Cf) those that reorder text, hide in it, or tag it. The joiners of emoji and of
# Persian and Indic script stay.
_HIDDEN = frozenset(
    "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2061\u2062\u2063\u2064\u2066\u2067\u2068\u2069\u206a\u206b"
    "\u206c\u206d\u206e\u206f\ufeff\ufff9\ufffa\ufffb"
)
_TAGS = range(0xE0000, 0xE0080)


def shown(text: object, *, lines: bool = False, limit: int | None = None) -> str:
    """`str(text)` with everything that acts on a terminal written as an escape, such as \\x1b or \\u202e.

    lines: line feeds stay. limit: characters at most; what is longer ends in "...".
    """
    text = str(text)
    if limit is not None and len(text) > limit:
        text = text[: max(0, limit - 3)] + "..."
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character if (lines and character == "\n") or not _acts(character) else _escape(character) for character in text
    )


def counted(number: float, unit: str) -> str:
    """A number of things for a sentence: "1 row", "1,200 rows", "2.5 epochs"."""
    shown_number = f"{number:g}" if isinstance(number, float) else f"{number:,}"
    return f"{shown_number} {unit}" + ("" if number == 1 else "s")


def say(*values: object, error: bool = False, separator: str = " ") -> None:
    """Prints one line, each value as `shown`, to stdout, or to stderr for an `error` or a note."""
    stream = sys.stderr if error else sys.stdout
    if stream is not None:
        write(separator.join(shown(value) for value in values) + "\n", stream)


def say_json(value: Any) -> None:
    """Prints a value as one line of JSON to stdout, in ASCII: what acts on a terminal is escaped as JSON escapes it."""
    write(json.dumps(value, allow_nan=False).replace("\x7f", "\\u007f") + "\n")


def write(text: str, stream: TextIO | None = None) -> None:
    """Writes text that holds only what `shown` lets through, tabs and line feeds; characters that the stream's encoding
    lacks as escapes. The stream is stdout where none is given; one that the process was started without takes nothing,
    as with print(). MachineError: the stream takes no more, as on a full disk."""
    stream = stream or sys.stdout
    if stream is None:
        return
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        name = getattr(stream, "name", "the output")
        raise MachineError(f"{name} takes no more ({error.strerror or error}): give it a place with room") from error


class Parser(argparse.ArgumentParser):
    """argparse's, but what is wrong with the arguments is an InputError like any other."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message[0].lower()}{message[1:]} (see {self.prog} --help)")


def say_error(error: object) -> None:
    """Prints an error's message to stderr as one line of at most `LONGEST_MESSAGE` characters."""
    with contextlib.suppress(OSError, MachineError):  # there is no other place to say that stderr takes nothing
        say(f"sparseq: error: {shown(' '.join(str(error).split()), limit=LONGEST_MESSAGE)}", error=True)


def _acts(character: str) -> bool:
    return unicodedata.category(character) in _ACTING or character in _HIDDEN or ord(character) in _TAGS


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
