"""GLUE's tasks from the Hugging Face hub's `nyu-mll/glue`, or its local copy."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from sparseq.errors import InputError
from sparseq.reading import brief
from sparseq.tasks.spec import TEXTS, Task

if TYPE_CHECKING:
    from datasets import Dataset

HUB_DATASET = "nyu-mll/glue"

_SECONDS = 2.5  # to connect; `datasets` itself tries six times, which takes 23 s in total


def read_hub(task: Task, *, with_train: bool) -> dict[str, Dataset]:
    """The task's splits by name, with the columns `text_a`, `text_b` and `label`.

    If the hub cannot be reached, the local copy is used at once.

    Raises:
        InputError: neither is available, with what to do; or the data differs from GLUE's.
    """
    from datasets import Value, load_dataset

    way_out = (
        "give --data-dir with GLUE's classic folders or your own --train-file and --validation-file, or set "
        "HF_HUB_OFFLINE=1 where the dataset is in the local cache"
    )
    splits = (("train",) if with_train else ()) + task.validation_splits
    with asking(f"task {task.name!r} could not be read from the hub's {HUB_DATASET}", way_out):
        found = {split: load_dataset(HUB_DATASET, task.name, split=split) for split in splits}
    wanted = dict(zip((*task.columns, task.label_column), (*TEXTS[: len(task.columns)], "label"), strict=True))
    for split, rows in found.items():
        missing = [column for column in wanted if column not in rows.column_names]
        if missing:
            raise InputError(
                f"column {missing[0]!r} is missing in the hub's {HUB_DATASET} {task.name} {split}: "
                f"its columns are {', '.join(rows.column_names)}"
            )
        changed = {old: new for old, new in wanted.items() if old != new}
        rows = rows.select_columns(list(wanted)).rename_columns(changed)
        found[split] = rows.cast_column("label", Value("float64" if task.is_regression else "int64"))
        _check_labels(task, split, found[split])
    return found


@contextlib.contextmanager
def asking(failed: str, way_out: str) -> Iterator[bool]:
    """Gives whether the hub can be reached; if not, `datasets` uses its local copies at once inside the block.

    Raises InputError for any error of the hub's clients inside: `failed`, the reason, and the `way_out`.
    """
    reached = reachable()
    try:
        with contextlib.nullcontext() if reached else _offline():
            yield reached
    except (InputError, MemoryError):
        raise
    except Exception as error:  # the clients of the hub raise errors of several libraries without a common base class
        reason = reason_of(error)
        if not reached:
            reason = f"the hub cannot be reached, and there is no local copy; {reason}"
        raise InputError(f"{failed} ({reason}): {way_out}") from error


def reason_of(error: Exception) -> str:
    """What went wrong, from an error of `datasets`, which may be only the outermost of several."""
    from datasets.exceptions import DatasetGenerationError

    if isinstance(error, DatasetGenerationError) and error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {brief(error)}"


def reachable() -> bool:
    """Whether the hub answers, tested once, for a few seconds at most.

    False if HF_HUB_OFFLINE or HF_DATASETS_OFFLINE is set.
    """
    from datasets import config
    from huggingface_hub import HfApi

    if config.HF_HUB_OFFLINE:
        return False
    try:
        HfApi().dataset_info(HUB_DATASET, timeout=_SECONDS)
    except Exception as error:  # errors of its HTTP library, which differ by version
        names = {kind.__name__ for kind in type(error).__mro__}
        return bool(names & {"HfHubHTTPError", "ReadTimeout"})  # it answered with an error, or was slow
    return True


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """Makes `datasets` use its cache alone, without trying the network first."""
    from datasets import config

    before = config.HF_HUB_OFFLINE
    config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        config.HF_HUB_OFFLINE = before


def _check_labels(task: Task, split: str, rows: Dataset) -> None:
    labels = np.asarray(rows["label"], dtype=np.float64)
    if labels.size == 0:
        raise InputError(f"the hub's {HUB_DATASET} {task.name} {split} has no rows: its local copy may be damaged")
    low, high = task.label_range or (0.0, task.num_labels - 1.0)
    bad = np.flatnonzero(~((labels >= low) & (labels <= high)))
    if bad.size:
        raise InputError(
            f"label {labels[bad[0]]:g} in row {bad[0]} of the hub's {HUB_DATASET} {task.name} {split} is out of range: "
            f"expected {low:g} to {high:g}"
        )
