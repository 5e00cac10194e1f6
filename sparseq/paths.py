"""Paths given by users: looking at one gives a value or an InputError, whatever it names.

`Path.is_dir` and similar methods raise where a name is too long or a folder may not be entered. This module uses the
functions of `os.path` instead, which return False.
"""

import os
from pathlib import Path

from sparseq.errors import InputError

__all__ = ["absolute", "check_new_folder", "expanded", "names_in", "nearby", "same"]


def expanded(path: str | os.PathLike[str]) -> Path:
    """The path with a leading ~ or ~user expanded. Raises InputError if there is no such user or no home folder."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise InputError(f"{path} begins with an unknown home folder: give the whole path") from error


def absolute(path: str | os.PathLike[str]) -> Path:
    """The absolute path, expanded, with symbolic links resolved as far as they exist.

    Raises InputError like `expanded`.
    """
    return Path(os.path.realpath(expanded(path)))


def nearby(path: str) -> str:
    """An absolute path below the current folder as one that begins there; any other text as it is."""
    here = os.getcwd() + os.sep
    # A name that begins with a dash would be an option.
    return path.removeprefix(here) if path.startswith(here) and path.removeprefix(here)[:1] not in ("", "-") else path


def check_new_folder(folder: Path, option: str) -> Path:
    """Checks that a folder exists or can be created.

    Raises InputError, naming the `option` that gives the folder, if the path is a file or inside a file, if the parent
    folder is not writable, or if the file system does not accept the name.
    """
    place = folder
    while True:
        try:
            os.stat(place)
            break
        except (FileNotFoundError, NotADirectoryError):
            place = place.parent
        except OSError as error:
            raise InputError(f"{option} {folder} cannot be used ({error.strerror}): give another folder") from error
    if not os.path.isdir(place):
        raise InputError(f"{option} {folder} is {'a file' if place == folder else 'inside a file'}: give a folder")
    if not os.access(place, os.W_OK):
        raise InputError(f"{option} {folder}: {place} is not writable; give another folder")
    return folder


def names_in(folder: Path) -> list[str]:
    """The names in a folder, sorted. Raises InputError if the folder is not readable."""
    try:
        return sorted(os.listdir(folder))
    except OSError as error:
        raise InputError(f"the folder {folder} cannot be read ({error.strerror})") from error


def same(one: str | Path, other: str | Path) -> bool:
    """Whether two paths name one place, even if one of them is relative."""
    return one == other or absolute(one) == absolute(other)
