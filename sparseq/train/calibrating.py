"""The batches that static ranges and smoothing are found from: training rows, or texts of random tokens."""

from collections.abc import Iterator
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor, nn
from transformers import DataCollatorWithPadding

from .collate import input_columns
from .data import SimilarLengths, lengths, tokenise
from .prepare import Prepared
from .recipe import Recipe


def calibration_batches(recipe: Recipe, rows: Dataset, prepared: Prepared) -> Iterator[dict[str, Tensor]]:
    """Inputs of the student, on its device: `calibration_rows` rows in batches of `batch_size`.

    rows: the tokenised training rows. The batches are always the same for the same recipe and rows; with random texts
    for the same recipe and tokenizer.
    """
    student, tokenizer = prepared.student, prepared.tokenizer
    if recipe.calibration_data == "random":
        columns = ("text_a", "text_b")[: len(prepared.task.columns)]
        texts = random_texts(tokenizer, recipe.calibration_rows, recipe.max_length, columns, recipe.seed)
        rows = tokenise(texts, tokenizer, recipe.max_length, student)
    place = next(student.parameters()).device
    for batch in batches_of(rows, student, tokenizer, recipe, recipe.calibration_rows):
        yield {name: tensor.to(place) for name, tensor in batch.items()}


def batches_of(
    rows: Dataset, model: nn.Module, tokenizer: Any, recipe: Recipe, count: int
) -> Iterator[dict[str, Tensor]]:
    """Inputs of the model on the CPU: `count` of the tokenised rows at most, in batches of the recipe's `batch_size`,
    drawn by its seed."""
    order = list(SimilarLengths(lengths(rows), recipe.batch_size, recipe.seed))[:count]
    collate = DataCollatorWithPadding(tokenizer)
    inputs = rows.select_columns(input_columns(rows, model))
    for start in range(0, len(order), recipe.batch_size):
        yield dict(collate([inputs[row] for row in order[start : start + recipe.batch_size]]))


def random_texts(tokenizer: Any, count: int, longest: int, columns: tuple[str, ...], seed: int) -> Dataset:
    """Rows of made-up texts: each of 1 to `longest` tokens, drawn uniformly from the vocabulary without its special
    tokens. A pair shares the tokens of a row between its texts."""
    special = set(tokenizer.all_special_ids)
    ordinary = torch.tensor(sorted(number for number in tokenizer.get_vocab().values() if number not in special))
    generator = torch.Generator().manual_seed(seed)
    made: dict[str, list[str]] = {column: [] for column in columns}
    for _ in range(count):
        length = int(torch.randint(1, longest + 1, (), generator=generator))
        for column in columns:
            drawn = torch.randint(len(ordinary), (max(1, length // len(columns)),), generator=generator)
            made[column].append(tokenizer.decode(ordinary[drawn].tolist()))
    return Dataset.from_dict(made)
