"""The file with a folder's weights, or the shards that transformers' `save_pretrained` splits it into."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from sparseq.errors import InputError
from sparseq.reading import brief, opened
from sparseq_kernels.untrusted import quoted

from .header import Entry, Header, read_header
from .names import WEIGHTS

__all__ = ["Files", "is_weights", "open_files"]

_SHARD = re.compile(r"model-(\d{5})-of-(\d{5})\.safetensors")
_MOST_SHARDS = 1024


@dataclass(frozen=True)
class Files:
    """The open files of one model. path: for messages. header: of all of them together. places: tensor name -> file."""

    path: Path
    header: Header
    places: dict[str, BinaryIO]


def is_weights(name: str) -> bool:
    """Whether a file of this name holds a model's weights or a shard of them."""
    return name == WEIGHTS or _SHARD.fullmatch(name) is not None


@contextlib.contextmanager
def open_files(folder: Path) -> Iterator[Files]:
    """Opens the weights and reads their headers.

    Raises InputError if the folder, the file or a shard is missing, if a header is damaged, and for shards that are not
    of one model.
    """
    paths = _paths(folder)
    path = paths[0] if len(paths) == 1 else folder
    with contextlib.ExitStack() as held:
        files = [held.enter_context(opened(place)) for place in paths]
        headers = [read_header(file, place) for file, place in zip(files, paths, strict=True)]
        entries: dict[str, Entry] = {}
        places: dict[str, BinaryIO] = {}
        for place, file, header in zip(paths, files, headers, strict=True):
            if header.metadata != headers[0].metadata:
                raise InputError(f"{place} and {paths[0].name} are of different models; save the model again")
            for name in entries.keys() & header.entries.keys():
                raise InputError(f"{place} holds {quoted(name)}, which another shard holds too; save the model again")
            entries |= header.entries
            places |= dict.fromkeys(header.entries, file)
        size = sum(header.size for header in headers)
        yield Files(path, Header(headers[0].metadata, entries, size), places)


def _paths(folder: Path) -> list[Path]:
    """`model.safetensors`, or else every shard."""
    single = folder / WEIGHTS
    wanted = "that sparseq.save or `sparseq compress` wrote"
    for place, missing in (
        (folder, f"there is no folder {folder}; give one {wanted}"),
        (single, f"{folder} holds no {WEIGHTS}; give a folder {wanted}"),
    ):
        try:
            there = place.is_dir() if place is folder else os.path.lexists(single)
            shards = [] if there else _shards(folder)
        except (OSError, ValueError) as error:
            raise InputError(f"{place} cannot be read ({brief(error)})") from error
        if place is single and shards:
            return shards
        if not there:
            raise InputError(missing)
    return [single]


def _shards(folder: Path) -> list[Path]:
    """The shards in the folder, in order; none if there are none. Raises InputError unless all of one set are there."""
    if not folder.is_dir():
        return []
    found = {name: match for name in os.listdir(folder) if (match := _SHARD.fullmatch(name))}
    if not found:
        return []
    counts = {int(match[2]) for match in found.values()}
    count = max(counts)
    if count > _MOST_SHARDS:
        raise InputError(f"{folder} has weights in {count} shards, and at most {_MOST_SHARDS} are read")
    names = [f"model-{i:05d}-of-{count:05d}.safetensors" for i in range(1, count + 1)]
    missing = [name for name in names if name not in found]
    if missing or len(counts) > 1:
        what = f"holds no {missing[0]}" if missing else "holds shards of several models"
        raise InputError(f"{folder} {what}; save or copy the model again")
    return [folder / name for name in names]
