"""What the command line says when it refuses its arguments."""

from typing import Any

import pytest

from sparseq.cli import main


def refused(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    """The one line that these arguments are refused with."""
    capsys.readouterr()
    assert main(list(map(str, argv))) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    return said.err


def refused_run(capsys: pytest.CaptureFixture[str], argv: list[str]) -> str:
    """The sentence that `argv` is refused with, on the last line; what a run said before may stand above it."""
    capsys.readouterr()
    assert main(argv) == 2
    said = capsys.readouterr()
    assert said.out == ""
    *progress, last = said.err.splitlines()
    assert last.startswith("sparseq: error: ")
    assert not any("Traceback" in line for line in progress)
    return last.removeprefix("sparseq: error: ")


def compress_flags(given: dict[str, Any]) -> list[str]:
    """The command `sparseq compress` with these flags."""
    return ["compress", *(str(part) for flag in given.items() for part in flag)]
