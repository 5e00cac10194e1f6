"""Files are hostile: whatever stands in a header or a config, loading refuses it in a sentence, or gives the same."""

import subprocess
import sys
from pathlib import Path

import pytest
from altered import FORMATS

PROGRAM = Path(__file__).parents[1] / "altered.py"
# Of the alterations, in the default run: a prime, so that all kinds of nodes and alterations have their turn.
EVERY = 401
# In CI: another, so that it meets others.
MORE = 37


def run(*arguments: str) -> None:
    command = [sys.executable, str(PROGRAM), "--show", "20", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def test_some_alterations_of_every_format() -> None:
    run("--every", str(EVERY))


@pytest.mark.slow
def test_more_alterations_of_every_format() -> None:
    run("--every", str(MORE))


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", FORMATS)
def test_every_alteration(name: str) -> None:
    run(name)
