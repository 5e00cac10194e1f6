"""Paths that users give: looking at one ends in a value or in a sentence, whatever it names.

`Path.is_dir` and its like raise where a name is too long or a folder may not be entered; those of `os.path`, which say
no, are used in their place.
"""

import os
from pathlib import Path

from sparseq.errors import InputError

__all__ = ["absolute", "check_new_folder", "expanded", "names_in"]


def expanded(path: str | os.PathLike[str]) -> Path:
    """The path with a leading ~ or ~user replaced. InputError: there is no such user, or no home."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise InputError(f"{path} begins with a home that is not known here: give the whole path") from error


def absolute(path: str | os.PathLike[str]) -> Path:
    """The path from the root, `expanded`, with links followed as far as there are any. InputError as `expanded`."""
    return Path(os.path.realpath(expanded(path)))


def check_new_folder(folder: Path, option: str) -> Path:
    """A folder that is there or can be made. InputError, naming the `option` that gives it: it is a file or inside one,
    what it is to be made in may not be written to, or no file system takes its name."""
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
        raise InputError(f"{option} {folder}: {place} may not be written to; give another folder")
    return folder


def names_in(folder: Path) -> list[str]:
    """The names in a folder, sorted. InputError: they may not be read."""
    try:
        return sorted(os.listdir(folder))
    except OSError as error:
        raise InputError(f"the folder {folder} cannot be read ({error.strerror})") from error
