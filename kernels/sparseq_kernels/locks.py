"""Locks of files and folders between processes; the operating system releases a lock when its process ends."""

import errno

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def lock(descriptor: int) -> None:
    """Takes the lock of an open file or folder without waiting, and holds it until the file is closed.

    Raises BlockingIOError if another process holds it, and another OSError if the file system or the operating system
    has no locks.
    """
    if fcntl is None:
        raise OSError(errno.ENOTSUP, "this system has no such locks")
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def unlock(descriptor: int) -> None:
    """Gives the lock back at once, also where a forked child has the file open too. OSError as `lock`."""
    if fcntl is None:
        raise OSError(errno.ENOTSUP, "this system has no such locks")
    fcntl.flock(descriptor, fcntl.LOCK_UN)
