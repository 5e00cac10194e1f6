"""Digests of everything besides the settings that a run depends on: its data, models and tokenizers.

They are computed from what was read and loaded, not from files: another spelling of the same rows is the same data.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tokenizers
import torch
import transformers
from torch import nn

from sparseq.dataset_name import DatasetName
from sparseq.distill import digest_model, digest_texts, digest_tokenizer
from sparseq.errors import InputError
from sparseq.paths import expanded
from sparseq.tasks import Data
from sparseq.tasks.metrics import own_name

from .recipe import Recipe

if TYPE_CHECKING:
    from datasets import Dataset

Fingerprint = dict[str, str]
"""Digests by the name of what they describe, as used in messages."""

LIBRARIES = "libraries"
"""The entry for the versions of the libraries that load models; with others the same files can give other digests."""


def of_data(data: Data) -> Fingerprint:
    """Digests of the texts and labels of the training rows, with the meaning of labels, of the rows scored on, and
    the name of a metric of the user's own."""
    task = data.task
    meaning = json.dumps([task.num_labels, task.label_names, task.is_regression])
    train = [] if data.train is None else [_rows(data.train)]
    validation = [f"{split} {_rows(rows)}" for split, rows in sorted(data.validations.items())]
    held_out = {} if data.held_out is None else {"held-out data": _rows(data.held_out)}
    metric = {"metric": own_name(task)}  # empty, as if it were missing, unless it is the user's own
    return {"training data": _joined([meaning, *train]), "validation data": _joined(validation), **held_out, **metric}


def of_model(model: nn.Module, tokenizer: Any, name: str = "model") -> Fingerprint:
    """Digests of a model as it was loaded, and of its tokenizer. `name`: 'model' or 'teacher'."""
    libraries = ", ".join(f"{reader.__name__} {reader.__version__}" for reader in (torch, transformers, tokenizers))
    return {name: digest_model(model), f"{name}'s tokenizer": digest_tokenizer(tokenizer), LIBRARIES: libraries}


def of_copies(rows: Dataset) -> Fingerprint:
    """A digest of the training rows with their augmented copies, which may differ between versions."""
    return {"augmented data": _rows(rows)}


def of_wordnet(folder: Path) -> Fingerprint:
    """A digest of the files that synonyms are taken from."""
    found = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.is_file():
            found.update(f"{path.name} {path.stat().st_size}\n".encode())
            found.update(path.read_bytes())
    return {"WordNet": found.hexdigest()}


def differing(known: Fingerprint, found: Fingerprint) -> tuple[list[str], list[str]]:
    """Compares two fingerprints, for everything in `found`.

    Returns (what has changed, what cannot be compared because other versions of the libraries load it now).
    """
    names = [name for name, digest in found.items() if name != LIBRARIES and known.get(name, "") != digest]
    if LIBRARIES not in found or known.get(LIBRARIES) == found[LIBRARIES]:
        return names, []
    loaded = [name for name in names if name.startswith(("model", "teacher"))]
    return [name for name in names if name not in loaded], loaded


def compare(
    recipe: Recipe, known: Fingerprint, sources: dict[str, Callable[[], Fingerprint]]
) -> tuple[list[str], dict[str, str]]:
    """What has changed since a run with the fingerprint `known`.

    sources: by the setting that names it, a function that loads a source and returns its part of the fingerprint. If a
    source exists and cannot be read, its InputError is raised; one that is missing, or on another machine, is not
    compared.

    Returns (names of what differs, a reason for each of the `sources` that cannot be compared).
    """
    changed, not_compared = [], {}
    for setting, load in sources.items():
        try:
            found = load()
        except InputError as error:
            if _is_here(recipe, setting):
                raise
            not_compared[setting] = str(error)
            continue
        others, unknown = differing(known, found)
        changed += others
        if unknown:
            not_compared[setting] = f"it was read with {known.get(LIBRARIES)}, and now with {found[LIBRARIES]}"
    return changed, not_compared


def _is_here(recipe: Recipe, setting: str) -> bool:
    """Whether everything that a source is read from is on this machine."""
    names = ("data_dir", "train_file", "validation_file") if setting == "data" else (setting,)
    given = [getattr(recipe, name) for name in names if getattr(recipe, name) is not None]
    if setting == "data" and recipe.dataset is not None:
        name = DatasetName.parse(recipe.dataset)
        return name.is_folder and os.path.isdir(expanded(name.place))
    return bool(given) and all(os.path.exists(expanded(path)) for path in given)


def _rows(rows: Any) -> str:
    texts = digest_texts([rows[name][:] for name in ("text_a", "text_b") if name in rows.column_names])
    labels = json.dumps(rows["label"][:]) if "label" in rows.column_names else ""
    return _joined([texts, labels])


def _joined(parts: list[str]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
