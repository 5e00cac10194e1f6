"""Files are hostile: whatever stands in a header or a config, loading refuses it in a sentence, or gives the same."""

import pytest
from altered import FORMATS
from fresh import FreshProcesses

# Of the alterations, in the default run: a prime, so that all kinds of nodes and alterations have their turn.
EVERY = 401
# In CI: another, so that it meets others.
MORE = 37


def run(process: FreshProcesses, *arguments: str) -> None:
    """In a process of its own, whose memory it bounds."""
    given = ["--show", "20", *arguments]
    done = process.run(f"import altered, sys; sys.argv[1:] = {given!r}; sys.exit(altered.main())")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def test_some_alterations_of_every_format(fresh_training: FreshProcesses) -> None:
    run(fresh_training, "--every", str(EVERY))


@pytest.mark.slow
def test_more_alterations_of_every_format(fresh_training: FreshProcesses) -> None:
    run(fresh_training, "--every", str(MORE))


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", FORMATS)
def test_every_alteration(name: str, fresh_training: FreshProcesses) -> None:
    run(fresh_training, name)
