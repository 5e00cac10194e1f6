"""Paths that users give: looking at one ends in a value or in a sentence, whatever it names.

`Path.is_dir` and its like raise where a name is too long or a folder may not be entered; those of `os.path`, which say
no, are used in their place.
"""

import os
from pathlib import Path

from sparseq.errors import InputError

__all__ = ["absolute", "expanded", "names_in"]


def expanded(path: str | os.PathLike[str]) -> Path:
    """The path with a leading ~ or ~user replaced. InputError: there is no such user, or no home."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise InputError(f"{path} begins with a home that is not known here: give the whole path") from error


def absolute(path: str | os.PathLike[str]) -> Path:
    """The path from the root, `expanded`, with links followed as far as there are any. InputError as `expanded`."""
    return Path(os.path.realpath(expanded(path)))


def names_in(folder: Path) -> list[str]:
    """The names in a folder, sorted. InputError: they may not be read."""
    try:
        return sorted(os.listdir(folder))
    except OSError as error:
        raise InputError(f"the folder {folder} cannot be read ({error.strerror})") from error
