"""The two exceptions that end a command in one sentence: `InputError` and `MachineError`."""

from sparseq_kernels.errors import InputError

__all__ = ["RAISED_ELSEWHERE", "InputError", "MachineError"]

RAISED_ELSEWHERE = "raised in another process, which tells it"
"""The note of an exception that several processes share, in all but the one that it was raised in."""


class MachineError(RuntimeError):
    """The machine failed although the input is valid, for example because the disk is full or memory ran out.

    The message is one sentence: what failed, where, and what to do. The command line prints it without a traceback and
    exits with code 1.
    """
