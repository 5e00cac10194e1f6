"""The exit codes of every command."""

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130
