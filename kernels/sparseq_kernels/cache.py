"""Where this library keeps what it made or fetched: $SPARSEQ_CACHE, otherwise ~/.cache/sparseq, or without a home a
folder in the system's temporary one."""

import atexit
import functools
import os
import shutil
import stat
import tempfile
import warnings
from pathlib import Path

# Of a folder: its group, or anybody, may put files there.
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def cache_dir() -> Path:
    """The cache folder; not created here."""
    named = os.environ.get("SPARSEQ_CACHE")
    try:
        if named:
            return Path(named).expanduser()
        if (home := Path.home()).is_dir():
            return home / ".cache" / "sparseq"
    except (RuntimeError, OSError):  # The user has no home, or may not look at it.
        pass
    return Path(tempfile.gettempdir()) / f"sparseq-{_user()}"


@functools.cache
def code_dir(name: str) -> Path:
    """The folder `name` of the cache, for files that this process will run: it exists, has mode 0700 and is ours.

    Where that cannot be, because another user owns it or may write to it or to a folder above it, or because it cannot
    be made, a fresh folder of this process alone, removed when it ends, and a warning.
    """
    wanted = Path(os.path.abspath(cache_dir() / name))
    try:
        reason = _why_not_private(wanted)
    except OSError as error:
        reason = str(error)
    if reason is None:
        return wanted
    warnings.warn(
        f"sparseq builds its native code anew in every process, in a temporary folder: {reason}. Point SPARSEQ_CACHE "
        "to a folder that you own and that nobody else can write to",
        stacklevel=2,
    )
    return fresh_dir()


@functools.cache
def fresh_dir() -> Path:
    """A new folder that only this user can enter, removed when the process ends."""
    folder, owner = Path(tempfile.mkdtemp(prefix="sparseq-")), os.getpid()

    def remove() -> None:
        if os.getpid() == owner:  # and not a fork of it, which may end before
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    return folder


def only_ours(path: Path) -> bool:
    """Whether it is a file of this user, no link, that nobody else can write to. OSError if it is not there."""
    found = path.lstat()
    return stat.S_ISREG(found.st_mode) and found.st_uid == _user() and not found.st_mode & _OTHERS_WRITE


def _why_not_private(folder: Path) -> str | None:
    """Makes the folder with mode 0700, and those above it; None if nobody else can change what lies in it, otherwise a
    reason. OSError where it cannot be made."""
    for missing in reversed([path for path in (folder, *folder.parents) if not os.path.lexists(path)]):
        missing.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        return f"{folder} is not a folder"
    if found.st_uid != _user():
        return f"{folder} belongs to another user"
    if found.st_mode & _OTHERS_WRITE:
        return f"other users can write to {folder}; remove it if you did not fill it"
    # Whoever can write to a folder above, or owns it, can put another folder in this one's place.
    for above in folder.parent.resolve(strict=True).joinpath(folder.name).parents:
        if (reason := _why_not_trusted(above)) is not None:
            return reason
    if stat.S_IMODE(found.st_mode) != 0o700:
        folder.chmod(0o700)
    return None


def _why_not_trusted(folder: Path) -> str | None:
    """None if only this user and root can rename what lies in the folder."""
    found = folder.lstat()
    if found.st_uid not in (0, _user()):
        return f"{folder} belongs to another user"
    # Many systems give each user a group of their own, and make folders writable for it.
    own_group = found.st_mode & _OTHERS_WRITE == stat.S_IWGRP and found.st_gid == _group()
    if found.st_mode & _OTHERS_WRITE and not own_group and not found.st_mode & stat.S_ISVTX:
        return f"other users can write to {folder}"
    return None


def _user() -> int:
    return os.geteuid() if hasattr(os, "geteuid") else 0


def _group() -> int:
    return os.getegid() if hasattr(os, "getegid") else 0
