"""Failures of the machine, which each library reports in its own way, turned into one exception: `MachineError`."""

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from sparseq.errors import InputError, MachineError

__all__ = ["is_full", "is_out_of_memory", "memory_kept", "writing"]

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)

# safetensors and tokenizers, written in Rust, raise their own errors with the system's error number in the text
_OS_ERROR = re.compile(r"\(os error (\d+)\)")
# torch.save: https://github.com/pytorch/pytorch/blob/main/caffe2/serialize/inline_container.cc
_TORCH_SAVE = ("inline_container", "PytorchStreamWriter")
_TORCH_OPEN = ("Parent directory", "cannot be opened")
# torch's allocators for the CPU and the GPU, the C++ library, and oneDNN
_OUT_OF_MEMORY = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "bad_alloc",
    "could not create a memory",
)


@contextlib.contextmanager
def writing(path: str | os.PathLike[str], way_out: str | None = None) -> Iterator[None]:
    """Raises MachineError, naming the file and what to do, if writing to `path` fails inside the block.

    path: the file, or the folder that all files of the block are in. way_out: replaces "and give the same command
    again" in the message. Other errors pass through.
    """
    try:
        yield
    except (InputError, MachineError):
        raise
    except Exception as error:
        number = _errno(error)
        if number is None and not any(sign in str(error) for sign in _TORCH_SAVE):
            raise
        raise MachineError(f"cannot write {path} ({_told(number, path)}): {way_out or _way_out(number)}") from error


@contextlib.contextmanager
def memory_kept(way_out: str) -> Iterator[None]:
    """Raises MachineError, ending in `way_out`, if memory runs out inside the block."""
    try:
        yield
    except (InputError, MachineError):
        raise
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise MachineError(f"memory ran out{_asked_for(error)}: {way_out}") from error


def is_full(error: OSError) -> bool:
    """Whether there was no room for the data: a full disk, a quota, or a limit on the size of files."""
    return error.errno in _FULL


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception of any library means that the machine or the GPU is out of memory."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    number = _OS_ERROR.search(str(error)[:1000])
    if number is not None and int(number[1]) == errno.ENOMEM:
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _OUT_OF_MEMORY)


def _errno(error: Exception) -> int | None:
    """The operating system's error number; None if the error is not the operating system's."""
    if isinstance(error, OSError):
        return error.errno or errno.EIO
    if isinstance(error, RuntimeError) and any(sign in str(error) for sign in _TORCH_OPEN):
        return errno.ENOENT
    found = _OS_ERROR.search(str(error)[:1000])
    return int(found[1]) if found else None


def _told(number: int | None, where: str | os.PathLike[str]) -> str:
    reason = os.strerror(number) if number is not None else "the file was not written to its end"
    if number is not None and number not in _FULL:
        return reason
    folder = Path(where)
    while not os.path.isdir(folder) and folder != folder.parent:
        folder = folder.parent
    try:
        return f"{reason}; {shutil.disk_usage(folder).free / 1e6:,.1f} MB are free there"
    except OSError:
        return reason


def _way_out(number: int | None) -> str:
    if number in _FORBIDDEN:
        return "make it writable, or give another folder"
    if number is None or number in _FULL:
        return "free some space, or raise the limit on the size of files, and give the same command again"
    return "fix that, and give the same command again"


def _asked_for(error: Exception) -> str:
    """The amount of memory that was requested, in parentheses, if the message gives it."""
    found = re.search(r"ried to allocate ([\d.]+ \w+)", str(error)[:1000])
    return f" ({found[1]} were asked for)" if found else ""
