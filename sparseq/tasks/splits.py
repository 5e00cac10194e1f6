"""The splits of a data set that are trained and validated on, or parts of them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from sparseq.errors import InputError
from sparseq.reading import brief
from sparseq.tasks.in_memory import InMemory
from sparseq.tasks.table import name_list
from sparseq_kernels.untrusted import quoted

OPTIONS = {"train": "--train-split", "validation": "--validation-split", "predictions": "--split"}
"""The option that names a split, by what the split is for."""

_TWO_PARTS = "--train-split 'train[:90%]' --validation-split 'train[90%:]'"

_Part = tuple[str, int, int]  # the rows of a split from one number to another


def choose_splits(splits: Mapping[str, Any], wanted: Mapping[str, str], name: str) -> dict[str, InMemory]:
    """The rows for each purpose.

    Args:
        splits: rows by the name of their split.
        wanted: for each purpose, one of `OPTIONS`, the name of a split, or parts of `datasets.Dataset`s in their
            notation: "train[:90%]", "train[:500]+test".
        name: of the data set, for messages.

    Raises:
        InputError: no such split; an unknown notation; training and validation rows that overlap.
    """
    found, parts = {}, {}
    for purpose, split in wanted.items():
        option = OPTIONS[purpose]
        example = _TWO_PARTS if len(wanted) > 1 else f"{option} 'train[90%:]'"
        parts[purpose] = _parts(splits, split, option, example, name)
        rows = splits[split] if split in splits else _joined(splits, parts[purpose], option, split)
        found[purpose] = InMemory(rows, f"the split {split!r} of {name}")
    for one in parts.get("train", ()):
        for other in parts.get("validation", ()):
            if one[0] == other[0] and max(one[1], other[1]) < min(one[2], other[2]):
                raise InputError(
                    f"the split {one[0]!r} of {name} is used to train on and to validate on: give parts of it without "
                    f"common rows, such as {_TWO_PARTS}"
                )
    return found


def _parts(splits: Mapping[str, Any], split: str, option: str, example: str, name: str) -> list[_Part]:
    if split in splits:
        return [(split, 0, sys.maxsize)]
    from datasets import ReadInstruction

    there = {of: len(rows) for of, rows in splits.items()}
    try:
        instruction = ReadInstruction.from_spec(split)
    except (ValueError, AssertionError) as error:
        raise InputError(f"{option} {quoted(split)} is neither a split nor a part of one: write {example}") from error
    try:
        return [(part.splitname, part.from_, part.to) for part in instruction.to_absolute(there)]
    except (ValueError, AssertionError) as error:
        names = name_list(list(there))
        if "Unknown split" not in str(error):
            raise InputError(
                f"{option} {quoted(split)} is no part of {name} ({brief(error)}): its splits are {names}"
            ) from error
        raise InputError(
            f"{name} has no split {quoted(split)}: its splits are {names}; name one with {option}, or give parts of "
            f"one, such as {example}"
        ) from error


def _joined(splits: Mapping[str, Any], parts: list[_Part], option: str, split: str) -> Any:
    from datasets import Dataset, concatenate_datasets

    if not all(isinstance(splits[of], Dataset) for of, _, _ in parts):
        raise InputError(f"{option} {quoted(split)} is a part of a split: only a datasets.Dataset can be divided so")
    try:
        return concatenate_datasets([splits[of].select(range(begin, end)) for of, begin, end in parts])
    except ValueError as error:
        raise InputError(f"{option} {quoted(split)} cannot be joined ({brief(error)}): give one split") from error
