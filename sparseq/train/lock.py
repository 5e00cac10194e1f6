"""A lock that allows one run at a time in a folder; the operating system releases it when the process ends."""

import contextlib
import errno
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from sparseq.errors import InputError
from sparseq.failures import is_full, writing
from sparseq.reading import brief, read_json
from sparseq_kernels.locks import lock

LOCK = ".lock"
TRIES = 1000


class InUseError(InputError):
    """Another run has the folder."""


@contextlib.contextmanager
def run_lock(folder: Path, say: Callable[[str], None], *, ours: bool = False) -> Iterator[None]:
    """Keeps other runs out of the folder inside the block. The folder is created if necessary.

    If it is empty at the end, it is removed again, provided that it was created here or belonged to a run before
    (`ours`). The lock ends with the process, however that ends, so nothing is left behind after a kill. `say` gets a
    message if the file system or the operating system has no such locks; then nothing keeps two runs apart.

    Raises InUseError if another run has the lock (naming its process, host and start), and InputError if the folder
    cannot be written to.
    """
    path = folder / LOCK
    made = [parent for parent in (folder, *folder.parents) if not os.path.lexists(parent)]
    if not made and (ours or os.path.lexists(path)):  # a killed process leaves the lock file
        made = [folder]
    try:
        descriptor = _acquire(path, folder, say)
    except OSError as error:
        if is_full(error):
            with writing(path):
                raise
        raise InputError(
            f"cannot write to --out {folder} ({brief(error)}): give a folder that you may write to"
        ) from error
    try:
        with writing(path):
            os.ftruncate(descriptor, 0)
            os.write(descriptor, json.dumps(_ourselves()).encode())
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()  # while the lock is held; later it could belong to another run
        os.close(descriptor)
        with contextlib.suppress(OSError):  # not empty
            for parent in made:
                parent.rmdir()


def _acquire(path: Path, folder: Path, say: Callable[[str], None]) -> int:
    """The descriptor of the locked lock file. Raises OSError if it cannot be opened."""
    for _ in range(TRIES):  # another run that ends may remove the folder or the file in between
        folder.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
        except FileNotFoundError:
            continue
        try:
            _lock(descriptor, path, folder, say)
            if _is_at(descriptor, path):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
    raise OSError(errno.ESTALE, f"{LOCK} does not stay the file that was opened")


def _lock(descriptor: int, path: Path, folder: Path, say: Callable[[str], None]) -> None:
    try:
        lock(descriptor)
    except BlockingIOError as error:
        raise InUseError(
            f"--out {folder} is in use by another run ({_holder(path)}): wait for its end, or give another folder"
        ) from error
    except OSError as error:
        say(f"{folder} cannot be locked ({brief(error)}): make sure that no other run writes to it")


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _ourselves() -> dict[str, str | int]:
    since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    return {"process": os.getpid(), "host": socket.gethostname(), "since": since}


def _holder(path: Path) -> str:
    try:
        told = read_json(path)
        return f"process {int(told['process'])} on {str(told['host'])[:100]}, since {str(told['since'])[:40]}"
    except (ValueError, TypeError, KeyError):  # it has the lock but has not written this yet
        return "which has just begun"
