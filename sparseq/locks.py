"""Locks of files and folders between processes. The operating system holds one for a process, and ends with it."""

import errno

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def lock(descriptor: int) -> None:
    """Takes the lock of an open file or folder, until it is closed; does not wait.

    BlockingIOError: another process has it. Another OSError: the file system, or the operating system, has none.
    """
    if fcntl is None:
        raise OSError(errno.ENOTSUP, "this system has no such locks")
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
