"""The name of a data set as users give it: one of the Hugging Face hub, or a local folder."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from sparseq.errors import InputError
from sparseq.paths import absolute, expanded

__all__ = ["TRAIN_SPLIT", "VALIDATION_SPLIT", "DatasetName"]

TRAIN_SPLIT, VALIDATION_SPLIT = "train", "validation"
"""The splits that are used unless others are named."""

# The names of configurations hold neither colons nor slashes, as files are named after them.
_HUB = re.compile(r"(?P<id>\w[\w.-]*(?:/\w[\w.-]*)?)(?::(?P<config>[^:@/]+))?(?:@(?P<revision>[^@\s]+))?", re.ASCII)


@dataclass(frozen=True)
class DatasetName:
    """A data set: ID[:CONFIG][@REVISION] of the hub, or FOLDER[:CONFIG].

    place: the id, or the path of the folder. config: the name of one of its configurations; None for its only one.
    revision: a branch, tag or commit of the hub's repository; None for its main branch.
    """

    place: str
    config: str | None = None
    revision: str | None = None
    is_folder: bool = False

    @classmethod
    def parse(cls, text: str) -> "DatasetName":
        """The data set of this name. A folder that exists goes before one of the hub, as with `datasets`.

        Raises InputError for a name of neither form. What begins as a path is a folder, even if it is missing.
        """
        if os.path.isdir(expanded(text)):
            return cls(text, is_folder=True)
        folder, _, config = text.rpartition(":")
        if folder and config and os.path.isdir(expanded(folder)):
            return cls(folder, config, is_folder=True)
        if os.path.isfile(expanded(text)):
            raise InputError(f"--dataset {text} is a file: give files as --train-file and --validation-file")
        if text.startswith(("/", "~", "./", "../")):
            return cls(text, is_folder=True)
        found = _HUB.fullmatch(text)
        if found is None:
            raise InputError(
                f"--dataset {text} is neither a folder that is there nor the name of a data set of the Hugging Face "
                "hub: write that as ID[:CONFIG][@REVISION], such as nyu-mll/glue:sst2"
            )
        return cls(found["id"], found["config"], found["revision"])

    def folder(self) -> Path:
        """The absolute path of the folder. Raises InputError if it is missing."""
        found = absolute(self.place)
        if not os.path.isdir(found):
            raise InputError(f"there is no folder {self.place}: give one with a data set, or the id of one of the hub")
        return found

    def resolved(self) -> "DatasetName":
        """The same with the absolute path of a folder."""
        return DatasetName(str(absolute(self.place)), self.config, is_folder=True) if self.is_folder else self

    def __str__(self) -> str:
        config = f":{self.config}" if self.config is not None else ""
        return f"{self.place}{config}" + (f"@{self.revision}" if self.revision is not None else "")
