"""What the command line says when it refuses its arguments."""

import pytest

from sparseq.cli import main


def refused(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    """The one line that these arguments are refused with."""
    capsys.readouterr()
    assert main(list(map(str, argv))) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    return said.err
