"""Files that survive a crash: written completely or not at all, flushed to disk, and checked for changes."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from sparseq.errors import InputError
from sparseq.failures import writing
from sparseq.paths import names_in
from sparseq.reading import brief, read_json

PARTIAL = ".partial"
_CHUNK = 2**20


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file, text in UTF-8, completely or not at all, even if the process is killed or the power fails.

    Raises MachineError if it cannot be written; an existing file then stays.
    """
    partial = path.with_name(path.name + PARTIAL)
    with writing(path):
        try:
            with partial.open("wb") as file:
                file.write(content.encode("utf-8") if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        except OSError:
            partial.unlink(missing_ok=True)
            raise
        flush(path.parent)


def flush(path: Path) -> None:
    """Waits until a file's content, or a folder's list of names, is on disk."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError:
        if not path.is_dir():  # Windows and some network drives cannot flush folders
            raise


def write_sealed(path: Path, content: dict[str, Any]) -> None:
    """Writes a JSON object with a sha256 of itself. Raises MachineError like `write_whole`."""
    write_whole(path, json.dumps({**content, "sha256": _digest(content)}, indent=2) + "\n")


def read_sealed(path: Path) -> dict[str, Any]:
    """The object that `write_sealed` wrote. Raises ValueError, with a short reason, if it is missing or changed."""
    try:
        found = read_json(path)
    except InputError as error:
        raise ValueError(brief(error)) from error
    if not isinstance(found, dict) or found.pop("sha256", None) != _digest(found):
        raise ValueError(f"{path.name} is not as it was written")
    return found


def seal(folder: Path, name: str, content: dict[str, Any]) -> None:
    """Flushes the folder's files, then writes `name`: `content`, and the size in bytes and sha256 of every file.

    The folder must not have subfolders. Raises MachineError like `write_whole`.
    """
    with writing(folder):
        files = {}
        for file in names_in(folder):
            if file != name:
                flush(folder / file)
                files[file] = [os.path.getsize(folder / file), sha256_of(folder / file)]
        flush(folder)
    write_sealed(folder / name, {**content, "files": files})


def unseal(folder: Path, name: str) -> dict[str, Any]:
    """The content that `seal` wrote into `name`.

    Raises ValueError, with a short reason, if the folder does not have exactly the same files as then, or if `name` was
    changed.
    """
    content = read_sealed(folder / name)
    files = content.pop("files", None)
    if not isinstance(files, dict):
        raise ValueError(f"{name} does not list its files")
    there = set(names_in(folder)) - {name}
    if missing := sorted(set(files) - there):
        raise ValueError(f"{missing[0]} is missing")
    if strange := sorted(there - set(files)):
        raise ValueError(f"{strange[0]} was not written with it")
    for file, (size, digest) in files.items():
        try:
            if not os.path.isfile(folder / file) or os.path.getsize(folder / file) != size:
                raise ValueError(f"{file} is not the file of {size:,} bytes that was written")
            if sha256_of(folder / file) != digest:
                raise ValueError(f"{file} is not as it was written")
        except OSError as error:
            raise ValueError(f"{file} cannot be read ({brief(error)})") from error
    return content


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def sha256_of(path: Path) -> str:
    """The sha256 of a file's content, in hexadecimal digits."""
    found = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            found.update(chunk)
    return found.hexdigest()
