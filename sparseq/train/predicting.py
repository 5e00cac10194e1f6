"""Predictions with the model of a finished run: for texts, for files of texts, and for GLUE's test sets."""

import csv
import io
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from sparseq.errors import InputError
from sparseq.tasks import Task
from sparseq.tasks.unlabelled import (
    read_glue_tests,
    read_unlabelled,
    read_unlabelled_split,
    submission_name,
    submission_value,
)
from sparseq_kernels.untrusted import quoted

from .data import encode
from .durable import write_whole
from .scoring import finished, load_folder, logits_of

TABLES = (".tsv", ".csv", ".jsonl")
"""The suffixes of the files that predictions are written to."""


@dataclass(frozen=True)
class Prediction:
    """The prediction for one text or pair.

    label: the name of the class, or for regression the number as text. value: the probability of the class, or the
    number.
    """

    text: tuple[str, ...]
    label: str
    value: float


class Predictor:
    """The model of a finished run, which is loaded when it is first needed.

    folder: written by `sparseq compress`. batch_size: by default the run's own for evaluation. Raises InputError for an
    unfinished or damaged folder.
    """

    def __init__(self, folder: str | Path, *, batch_size: int | None = None) -> None:
        self.folder = folder
        self.task, self.recipe = finished(folder)
        self.batch_size = batch_size or self.recipe.eval_batch_size

    @cached_property
    def _loaded(self) -> tuple[nn.Module, Any]:
        return load_folder(self.folder)

    def check(self, text: Sequence[str], where: str) -> None:
        """Checks that `text` has the one or two texts that the task reads, in valid Unicode.

        Raises InputError, naming `where`, if not.
        """
        wanted = len(self.task.columns)
        if len(text) != wanted:
            raise InputError(
                f"task {self.task.name!r} reads {'a pair of texts' if wanted == 2 else 'one text'}, not {len(text)}, "
                f"in {where}" + (": give the second with --text-pair, or after a tab on stdin" if wanted == 2 else "")
            )
        for part in text:
            if any("\ud800" <= character <= "\udfff" for character in part):
                raise InputError(f"{where} is not valid Unicode, {quoted(part)}: give it as UTF-8")

    def predict(
        self, texts: Sequence[tuple[str, ...] | None], where: Callable[[int], str] = lambda row: f"text {row + 1}"
    ) -> list[Prediction | None]:
        """A prediction for each text, in order; None for None, which stands for a blank line.

        where: names a text in messages. All texts are checked (see `check`) before any is predicted.
        """
        given = [text for text in texts if text is not None]
        for row, text in enumerate(texts):
            if text is not None:
                self.check(text, where(row))
        predicted = iter(self._predict(given) if given else ())
        return [None if text is None else next(predicted) for text in texts]

    def _predict(self, texts: Sequence[tuple[str, ...]]) -> list[Prediction]:
        model, tokenizer = self._loaded
        columns = {name: list(part) for name, part in zip(("text_a", "text_b"), zip(*texts, strict=True), strict=False)}
        inputs = encode(columns, tokenizer, self.recipe.max_length, model)
        logits = logits_of(model, inputs, tokenizer, batch_size=self.batch_size)
        if not logits.isfinite().all():
            raise InputError(f"the model in {self.folder} predicts NaN or infinity: train it anew, with a lower --lr")
        if self.task.is_regression:
            numbers = logits[:, 0].tolist()
            return [Prediction(text, f"{number:.4f}", number) for text, number in zip(texts, numbers, strict=True)]
        names = self.task.label_names or tuple(map(str, range(self.task.num_labels)))
        shares, classes = logits.softmax(-1).max(-1)
        return [
            Prediction(text, names[number], share)
            for text, number, share in zip(texts, classes.tolist(), shares.tolist(), strict=True)
        ]


@dataclass(frozen=True)
class Predicted:
    """The predictions for one file: `index` identifies each row, `path` is the file, `task` the task."""

    task: Task
    path: Path
    index: list[str]
    predictions: list[Prediction]

    def submission(self) -> tuple[str, str]:
        """(name, content) of the file that GLUE accepts: `index`, `prediction`, separated by tabs.

        Raises InputError if the task is none of GLUE's, or if the index does not consist of distinct whole numbers.
        """
        name = submission_name(self.task, self.path)
        seen: set[str] = set()
        for row, index in enumerate(self.index, 1):
            if not (index.isascii() and index.isdecimal()) or index in seen:
                what = "there twice" if index in seen else "no whole number"
                raise InputError(
                    f"index {quoted(index)} in row {row} of {self.path} is {what}: GLUE tells rows apart by it"
                )
            seen.add(index)
        rows = (submission_value(self.task, found.label, found.value) for found in self.predictions)
        lines = [f"{index}\t{value}\n" for index, value in zip(self.index, rows, strict=True)]
        return name, "index\tprediction\n" + "".join(lines)


def predict(folder: str | Path, texts: Sequence[tuple[str, ...]], *, batch_size: int | None = None) -> list[Prediction]:
    """Predictions of a finished run's model for texts, each a tuple of the one or two that its task reads.

    Raises InputError if a tuple has another length, and for text that is not valid Unicode.
    """
    return [found for found in Predictor(folder, batch_size=batch_size).predict(texts) if found is not None]


def predict_file(predictor: Predictor, file: str | Path, text_columns: Sequence[str] | None = None) -> Predicted:
    """Predictions for the rows of an unlabelled file, in order. Raises InputError like `read_unlabelled`."""
    return _predict_rows(predictor, read_unlabelled(predictor.task, file, text_columns))


def predict_split(
    predictor: Predictor, dataset: str, split: str, text_columns: Sequence[str] | None = None
) -> Predicted:
    """Predictions for a split of a data set, in order. Raises InputError like `read_unlabelled_split`."""
    return _predict_rows(predictor, read_unlabelled_split(predictor.task, dataset, split, text_columns))


def predict_glue_tests(predictor: Predictor, data_dir: str | Path) -> list[Predicted]:
    """Predictions for the task's test files in GLUE's classic layout. Raises InputError like `read_glue_tests`."""
    return [_predict_rows(predictor, rows) for rows in read_glue_tests(predictor.task, data_dir)]


def _predict_rows(predictor: Predictor, rows: Any) -> Predicted:
    found = predictor.predict(rows.texts, rows.place)
    index = [str(row) if label is None else label for row, label in enumerate(rows.labels)]
    return Predicted(predictor.task, rows.path, index, [one for one in found if one is not None])


def table_of(index: Sequence[str], predictions: Sequence[Prediction | None], suffix: str) -> str:
    """Predictions as the content of a file: index, prediction and value, in one of the `TABLES`; empty for None."""
    rows = [
        (at, None, None) if one is None else (at, one.label, one.value)
        for at, one in zip(index, predictions, strict=True)
    ]
    names = ("index", "prediction", "value")
    if suffix == ".jsonl":
        return "".join(json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False) + "\n" for row in rows)
    content = io.StringIO()
    writer = csv.writer(content, delimiter="\t" if suffix == ".tsv" else ",", lineterminator="\n")
    writer.writerow(names)
    writer.writerows((at, label, None if value is None else f"{value:.6g}") for at, label, value in rows)
    return content.getvalue()


def check_output(path: Path, source: str | Path | None = None) -> Path:
    """A path that predictions can be written to.

    Raises InputError for a folder, for another suffix, if the parent folder is missing, and for the file `source`,
    which is read.
    """
    if path.suffix.lower() not in TABLES:
        raise InputError(f"--out {path} has the suffix {path.suffix!r}: predictions are written as {', '.join(TABLES)}")
    path = Path(os.path.realpath(path))  # the target of a link is written, and the link stays
    if os.path.isdir(path):
        raise InputError(f"--out {path} is a folder: give a file")
    if os.path.lexists(path) and not os.path.isfile(path):
        raise InputError(f"--out {path} is no regular file: give one that can be replaced")
    if source is not None and os.path.exists(path) and os.path.exists(source) and os.path.samefile(path, source):
        raise InputError(f"--out {path} is the file to predict: give another")
    if not os.path.isdir(path.parent):
        raise InputError(f"--out {path} is in a folder that is not there: make it first")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"--out {path} is in a folder that is not writable: give another")
    return path


def write_output(path: Path, content: str) -> None:
    """Writes a file completely or not at all. Raises OSError, naming the path, if it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
