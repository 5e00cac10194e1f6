"""Labelled sentences of a file, as a workload that whole models are timed and scored on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.workloads import Lengths, Workload, of_sentences
from sparseq.errors import InputError
from sparseq.models import load_tokenizer
from sparseq.paths import expanded
from sparseq.tasks import Task, compute_metrics, load_data, score
from sparseq.tasks.files import open_table
from sparseq.tasks.load import choose_text_columns
from sparseq.tasks.spec import CUSTOM
from sparseq.tasks.unlabelled import read_unlabelled
from sparseq.train.folder import METRICS
from sparseq.train.scoring import finished

LONGEST = 128  # tokens of a sentence, for a model whose training does not say


@dataclass(frozen=True)
class Sentences:
    """rows: token ids. labels: class numbers, or numbers for regression, None without. task: what they are for."""

    lengths: Lengths
    rows: list[list[int]]
    padding: int
    task: Task
    labels: Tensor | None

    def workload(self) -> Workload:
        """The sentences in batches, in their own order."""
        return of_sentences(self.lengths.name, self.rows, self.labels, self.padding)

    def score(self, logits: Tensor) -> float:
        """The task's score of logits [sentences, classes] (accuracy, if it has no other), a fraction."""
        assert self.labels is not None
        return score(self.task, compute_metrics(self.task, logits.numpy(), self.labels.numpy()))


def read_sentences(
    file: Path,
    tokenizer: Path,
    *,
    model: Path | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
    max_length: int | None = None,
) -> Sentences:
    """The sentences of a file (see `sparseq.tasks.files.open_table`), and their labels if it has that column.

    tokenizer: its folder. model: the folder of a model, whose task and longest sentence are taken if it is a finished
    run of `sparseq compress`. Raises InputError for what cannot be read, and for pairs of sentences.
    """
    task, limit = _trained_for(model)
    table = open_table(expanded(file))
    columns = choose_text_columns(None if text_column is None else [text_column], task, table)
    if len(columns) != 1:
        raise InputError(f"{file} holds pairs of texts, and models are timed on single ones: give --text-column NAME")
    wanted = label_column or (task.label_column if task else "label")
    labels: Tensor | None = None
    if wanted in table.columns:
        data = load_data(
            task or CUSTOM, validation_file=file, text_columns=columns, label_column=wanted, with_train=False
        )
        task, [rows] = data.task, data.validations.values()
        texts, labels = list(rows["text_a"][:]), torch.tensor(rows["label"][:])
    elif label_column is not None:
        raise InputError(f"{file} has no column {label_column!r}: give the one that holds labels, or none")
    else:
        task = task or Task(CUSTOM, columns)
        texts = [text for (text,) in read_unlabelled(task, file, columns).texts]
    reader = load_tokenizer(tokenizer)
    ids = reader(texts, truncation=True, max_length=max_length or limit)["input_ids"]
    lengths = Lengths(file.name, file.name, _name(reader), tuple(map(len, ids)))
    return Sentences(lengths, ids, reader.pad_token_id or 0, task, labels)


def _trained_for(model: Path | None) -> tuple[Task | None, int]:
    """The task of a finished run and its longest sentence."""
    if model is None or not (model / METRICS).exists():
        return None, LONGEST
    task, recipe = finished(model)
    return task, recipe.max_length


def _name(tokenizer: Any) -> str:
    return f"{type(tokenizer).__name__}, {len(tokenizer)} tokens"
