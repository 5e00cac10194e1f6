"""Keys of cells: digests of a run's settings and of everything that it reads from this machine."""

import dataclasses
import hashlib
import json
import os
import stat
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from sparseq.augment.finding import find_wordnet
from sparseq.criterion import FORMER
from sparseq.dataset_name import DatasetName
from sparseq.errors import InputError
from sparseq.paths import absolute, expanded, names_in
from sparseq.tasks.glue import files_of, find_folder
from sparseq.tasks.spec import get_task
from sparseq.train.durable import sha256_of
from sparseq.train.recipe import PATH_SETTINGS, Recipe

# Settings whose default is not what runs did before they were there -> that.
_BEFORE: dict[str, Any] = {"criterion": FORMER}
# Of a model's folder, besides its weights.
_OF_MODELS = ("config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt", "pytorch_model.bin")


def key_of(recipe: Recipe, starts_from: str | None = None, taught_by: str | None = None) -> str:
    """The key of a run: a sha256, in hexadecimal digits, of its settings and data.

    starts_from, taught_by: keys of the runs whose models it starts from and learns from, instead of the recipe's
    `model` and `teacher`.

    Files count by their content, wherever they are; data and models of the hub by their names. A setting that has its
    default does not count, so that a setting that a later version adds does not change the keys of earlier runs.

    Raises InputError for data that is not there.
    """
    default = dataclasses.replace(Recipe(), **_BEFORE)
    values: dict[str, Any] = {
        name: getattr(recipe, name)
        for name in recipe.in_use()
        if name not in PATH_SETTINGS and getattr(recipe, name) != getattr(default, name)
    }
    if isinstance(recipe.layers, int):
        values["layers"] = [recipe.layers, "first to last"]  # before, the last was left out: 3 of 6 were 0, 2 and 4
    values["model"] = starts_from or _of_model(str(recipe.model))
    if recipe.uses("kd"):
        values["teacher"] = taught_by or _of_model(str(recipe.teacher))
    values["data"] = _of_data(recipe)
    if recipe.augment_copies:
        values["wordnet"] = _of_wordnet(recipe.wordnet)
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _of_data(recipe: Recipe) -> str:
    if recipe.train_file is not None or recipe.validation_file is not None:
        files = (recipe.train_file, recipe.validation_file)
        return " ".join(_of_file(path) for path in files if path is not None)  # loading says that one is missing
    if recipe.dataset is not None:
        name = DatasetName.parse(recipe.dataset)
        return _of_tree(name.folder(), str(name.config)) if name.is_folder else str(name)
    task = get_task(str(recipe.task))
    if recipe.data_dir is None:
        return task.name
    return _of_folder(str(find_folder(task, expanded(recipe.data_dir))), files_of(task))


def _of_tree(folder: Path, config: str) -> str:
    """Of all files in a folder and the folders in it, without hidden ones and what `datasets` caches there."""
    found = hashlib.sha256(f"{config}\n".encode())
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith((".", "cache-")):
                path = Path(place, name)
                found.update(f"{path.relative_to(folder).as_posix()} {_of_file(str(path))}\n".encode())
    return found.hexdigest()


def _of_wordnet(path: str | None) -> str:
    folder = find_wordnet(path)
    return "" if folder is None else _of_folder(str(folder), tuple(names_in(folder)))  # the run says that there is none


def _of_model(name: str) -> str:
    return _of_folder(str(absolute(name)), _OF_MODELS) if os.path.isdir(expanded(name)) else name


def _of_folder(folder: str, names: Sequence[str]) -> str:
    """Of the files of these names that are there, and of all weights."""
    found = hashlib.sha256()
    for name in names_in(Path(folder)):
        path = Path(folder) / name
        if os.path.isfile(path) and (name in names or name.endswith(".safetensors")):
            found.update(f"{name} {_of_file(str(path))}\n".encode())
    return found.hexdigest()


def _of_file(path: str) -> str:
    try:
        found = os.stat(expanded(path))
        if not stat.S_ISREG(found.st_mode):  # a named pipe would be waited for
            raise InputError(f"{path} is not a regular file: give the path of a readable file")
        return _read(path, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): give the path of a readable file") from error


@cache
def _read(path: str, *version: int) -> str:
    """The file's digest. version: what changes if the file does, so that it is read again then."""
    return sha256_of(expanded(path))
