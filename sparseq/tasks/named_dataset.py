"""Data sets by name: those of the Hugging Face hub, and folders, both read by `datasets`."""

from __future__ import annotations

import os
import pkgutil
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from sparseq.dataset_name import DatasetName
from sparseq.errors import InputError
from sparseq.tasks.hub import asking, reason_of

if TYPE_CHECKING:
    from datasets import Dataset

_COMMIT = re.compile(r"hf://datasets/[^@]+@([0-9a-f]{40})/")
_SAVED = ("dataset_dict.json", "state.json")  # of DatasetDict.save_to_disk and Dataset.save_to_disk


def read_dataset(name: DatasetName) -> tuple[dict[str, Dataset], str | None]:
    """(the splits by name, the commit of the hub that they are of).

    A folder is one that `save_to_disk` has written, or one of Parquet, CSV or JSON files. Programs in a data set are
    not run. The commit is None for a folder, and where it is not known.

    Raises:
        InputError: no such data set, configuration or revision; a hub that cannot be reached, without a local copy;
            files that cannot be read.
    """
    if name.is_folder:
        return _read_folder(name), None
    from datasets import load_dataset, packaged_modules

    # `datasets` would take the name for that of a file format, and read the files of the current folder.
    if name.place in {module.name for module in pkgutil.iter_modules(packaged_modules.__path__)}:
        raise InputError(
            f"--dataset {name.place} names a kind of file: give a folder of such files, or an id of the hub"
        )
    way_out = "check its name, or give a local folder with it, or --train-file and --validation-file"
    with asking(f"the data set {name} could not be read from the Hugging Face hub", way_out) as reached:
        # The newest versions of `datasets` never run programs; those before must be told.
        found = load_dataset(name.place, name.config, revision=name.revision, trust_remote_code=False)
    splits = _splits(found)
    commit = _commit_of(splits)
    if not reached and name.revision is not None and not (commit or "").startswith(name.revision):
        raise InputError(
            f"the hub cannot be reached, and the local copy of {name.place} is of "
            f"{f'commit {commit}' if commit else 'an unknown commit'}: give @{commit or 'REVISION'} only where it is "
            "that, or connect to the hub"
        )
    return splits, commit


def _read_folder(name: DatasetName) -> dict[str, Dataset]:
    from datasets import load_dataset, load_from_disk

    folder = name.folder()
    saved = any(os.path.isfile(folder / mark) for mark in _SAVED)
    if saved and name.config is not None:
        raise InputError(f"--dataset {name}: a folder of save_to_disk has no configurations; give {name.place}")
    try:
        if saved:
            return _splits(load_from_disk(str(folder)))
        return _splits(load_dataset(str(folder), name.config, trust_remote_code=False))
    except MemoryError:
        raise
    except Exception as error:  # of `datasets`, pyarrow, pandas and fsspec
        raise InputError(
            f"the data set in the folder {name} could not be read ({reason_of(error)}): give one that save_to_disk has "
            "written, or one of Parquet, CSV or JSON files"
        ) from error


def _splits(found: Dataset | Mapping[str, Dataset]) -> dict[str, Dataset]:
    """The splits by name; a `Dataset` that was saved alone is one split."""
    if isinstance(found, Mapping):
        return {str(name): rows for name, rows in found.items()}
    return {str(found.split or "train"): found}


def _commit_of(splits: Mapping[str, Dataset]) -> str | None:
    """The commit in the addresses that the files were downloaded from; None if they do not have it."""
    for rows in splits.values():
        for address in rows.info.download_checksums or ():
            if found := _COMMIT.match(str(address)):
                return found[1]
    return None
