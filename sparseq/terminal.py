"""All output of the programs, with text from files and users escaped so that it cannot control the terminal.

A terminal obeys control characters wherever they come from: a label could move the cursor, change colours or the window
title, or answer as if typed. A direction override shows text in another order than it has.
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
# The invisible format characters (Cf) that reorder, hide in or tag text. The joiners of emoji and of Persian and
# Indic scripts are kept.
_HIDDEN = frozenset(
    "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2061\u2062\u2063\u2064\u2066\u2067\u2068\u2069\u206a\u206b"
    "\u206c\u206d\u206e\u206f\ufeff\ufff9\ufffa\ufffb"
)
_TAGS = range(0xE0000, 0xE0080)


def shown(text: object, *, lines: bool = False, limit: int | None = None) -> str:
    """`str(text)` with all characters that control a terminal replaced by escapes, such as \\x1b or \\u202e.

    lines: keep line feeds. limit: the maximum number of characters; longer text ends in "...".
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
    """Prints one line, each value as `shown`, to stdout, or to stderr if it is an `error` or a note."""
    stream = sys.stderr if error else sys.stdout
    if stream is not None:
        write(separator.join(shown(value) for value in values) + "\n", stream)


def say_json(value: Any) -> None:
    """Prints a value as one line of JSON to stdout, in ASCII; JSON escapes all control characters."""
    write(json.dumps(value, allow_nan=False).replace("\x7f", "\\u007f") + "\n")


def write(text: str, stream: TextIO | None = None) -> None:
    """Writes text that is safe already: only characters that `shown` keeps, tabs and line feeds.

    Characters that the stream's encoding lacks are escaped. The default stream is stdout; as with print(), nothing is
    written if the process was started without that stream. Raises MachineError if the stream does not accept more, for
    example on a full disk.
    """
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
        raise MachineError(
            f"cannot write to {name} ({error.strerror or error}): redirect it to a place with free space"
        ) from error


class Parser(argparse.ArgumentParser):
    """argparse's parser, but wrong arguments raise InputError like any other bad input."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message[0].lower()}{message[1:]} (see {self.prog} --help)")


def say_error(error: object) -> None:
    """Prints an error's message to stderr as one line of at most `LONGEST_MESSAGE` characters."""
    with contextlib.suppress(OSError, MachineError):  # there is no other stream to report this on
        say(f"sparseq: error: {shown(' '.join(str(error).split()), limit=LONGEST_MESSAGE)}", error=True)


def _acts(character: str) -> bool:
    return unicodedata.category(character) in _ACTING or character in _HIDDEN or ord(character) in _TAGS


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
