"""Rows of SST-2's `train.tsv` for the studies: some to train or calibrate on, and others to measure on."""

import csv
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

ROWS, HELD_OUT = 1200, 1000
LENGTH = 48
"""In tokens; longer rows are cut."""


def split(source: Path, folder: Path, rows: int, held_out: int, seed: int) -> tuple[Path, Path]:
    """`rows` training rows and as many `held_out` ones, drawn from the file by `seed`, written to the folder.

    None of the second contains a training row or is contained in one.
    """
    train, validation = folder / "train.csv", folder / "held_out.csv"
    if not validation.exists():
        lines = [line.rpartition("\t") for line in source.read_text(encoding="utf-8").splitlines()[1:]]
        texts = list({text.strip(): label for text, _, label in lines}.items())
        random.Random(seed).shuffle(texts)
        chosen = texts[:rows]
        other = [row for row in texts[rows:] if not any(row[0] in text or text in row[0] for text, _ in chosen)]
        folder.mkdir(parents=True, exist_ok=True)
        for path, content in ((train, chosen), (validation, other[:held_out])):
            with path.open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows([("sentence", "label"), *content])
    return train, validation


def read_rows(path: Path, tokenizer: Any) -> list[tuple[list[int], int]]:
    """Token ids and label of each row."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    ids = tokenizer([row["sentence"] for row in rows], truncation=True, max_length=LENGTH)["input_ids"]
    return [(tokens, int(row["label"])) for tokens, row in zip(ids, rows, strict=True)]


def batch_of(rows: Sequence[tuple[list[int], int]], tokenizer: Any) -> dict[str, Tensor]:
    padded = tokenizer.pad({"input_ids": [ids for ids, _ in rows]}, return_tensors="pt")
    return {**padded, "labels": torch.tensor([label for _, label in rows])}
