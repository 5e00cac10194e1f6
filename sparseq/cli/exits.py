"""The exit codes of every command."""

from sparseq.terminal import say
from sparseq.train.gate import Drop

FAILED, BAD_INPUT, DROPPED, INTERRUPTED = 1, 2, 3, 130
"""DROPPED: everything went well, and the score is further below another model's than `--max-drop` allows."""


def code_of(drop: Drop | None) -> int:
    """The exit code for a drop in score; one that is too large is reported on stderr."""
    if drop is None or drop.passed is not False:
        return 0
    say(f"sparseq: {drop.refusal()}", error=True)
    return DROPPED
