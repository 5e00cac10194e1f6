"""Padding of rows to batches: the student's inputs, and the teacher's under their own names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import nn
from transformers import BatchEncoding, DataCollatorWithPadding

from sparseq.distill.batch import TEACHERS, teachers_inputs
from sparseq.errors import InputError

from .data import inputs_of

if TYPE_CHECKING:
    from datasets import Dataset


def input_columns(rows: Dataset, model: nn.Module) -> list[str]:
    """The columns of tokenised rows that the model's forward accepts, without labels."""
    taken = inputs_of(model) - {"labels"}
    return [name for name in rows.column_names if name in taken]


def with_teachers_inputs(
    rows: Dataset, teachers: Dataset, teacher: nn.Module, numbers: Sequence[int] | None = None
) -> Dataset:
    """The student's tokenised rows with the teacher's inputs added.

    teachers: the same rows, tokenised for the teacher. numbers: the teacher's id of each of the student's tokens; None
    if it is the student's. Raises InputError if the tokens of a row differ, because hidden states could not be
    compared.
    """
    for number, (own, other) in enumerate(zip(rows["input_ids"], teachers["input_ids"], strict=True), 1):
        if (own if numbers is None else [numbers[one] for one in own]) != other:
            raise InputError(
                f"the hidden-state loss compares token by token, but the two models' tokenizers split training row "
                f"{number} differently: use models with the same tokenizer, or --hidden-loss 0"
            )
    for name in input_columns(teachers, teacher):
        rows = rows.add_column(f"{TEACHERS}{name}", teachers[name][:])
    return rows


class Collate:
    """Pads each model's inputs as its own tokenizer does."""

    def __init__(self, tokenizer: Any, teacher_tokenizer: Any = None) -> None:
        self.own = DataCollatorWithPadding(tokenizer)
        self.teachers = None if teacher_tokenizer is None else DataCollatorWithPadding(teacher_tokenizer)

    def __call__(self, rows: list[dict[str, Any]]) -> BatchEncoding:
        batch = self.own([{name: row[name] for name in row if not name.startswith(TEACHERS)} for row in rows])
        if self.teachers is not None:
            theirs = self.teachers([teachers_inputs(row) for row in rows])
            batch.update({f"{TEACHERS}{name}": value for name, value in theirs.items()})
        return batch
