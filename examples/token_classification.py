"""Compress a tagger: a class for each token, such as named entities."""

from __future__ import annotations

from typing import Any

import numpy as np
from datasets import Dataset, load_dataset
from transformers import (
    AutoModelForTokenClassification,
    AutoTokenizer,
    BertForTokenClassification,
    DataCollatorForTokenClassification,
    Trainer,
)

import sparseq
from examples import small
from examples.common import arguments, options, report, stored
from sparseq.hf import Distillation, DistillationTrainer, PruningCallback, QATCallback

IGNORED = -100
"""The label of tokens that are not counted."""


def main() -> None:
    chosen = options(__doc__, "google/bert_uncased_L-4_H-512_A-8")
    if chosen.smallest:
        tokenizer: Any = small.tokenizer()
        models = [small.model(BertForTokenClassification) for _ in range(2)]
        train, validation = small.entities(), small.entities(seed=1)
    else:
        tokenizer = AutoTokenizer.from_pretrained(chosen.model)
        data = load_dataset("eriktks/conll2003", revision="refs/convert/parquet")
        train, validation = data["train"], data["validation"]
        classes = train.features["ner_tags"].feature.num_classes
        models = [AutoModelForTokenClassification.from_pretrained(chosen.model, num_labels=classes) for _ in range(2)]
    train, validation = (tokenized(rows, tokenizer) for rows in (train, validation))
    collate = DataCollatorForTokenClassification(tokenizer)
    teacher, student = models

    trainer = Trainer(teacher, arguments(chosen), train_dataset=train, data_collator=collate)
    trainer.train()
    before = accuracy(trainer, validation)

    sparseq.convert(student, bits=8)
    trainer = DistillationTrainer(
        student,
        arguments(chosen),
        train_dataset=train,
        data_collator=collate,
        distillation=Distillation(teacher),
        callbacks=[PruningCallback(sparsity=chosen.sparsity, pattern=chosen.pattern), QATCallback()],
    )
    trainer.train()
    after = accuracy(trainer, validation)

    packed = sparseq.pack(student)
    sparseq.save(packed, chosen.out / "packed", tokenizer)
    AutoModelForTokenClassification.from_pretrained(chosen.out / "packed")
    report({"teacher": (before, stored(teacher)), "student, packed": (after, stored(packed))}, "accuracy")


def tokenized(rows: Dataset, tokenizer: Any) -> Dataset:
    """Tokens with labels: a word's class at its first piece, `IGNORED` elsewhere."""

    def encode(batch: dict[str, Any]) -> dict[str, Any]:
        found = tokenizer(batch["tokens"], is_split_into_words=True, truncation=True, max_length=128)
        found["labels"] = [labels_of(found.word_ids(row), tags) for row, tags in enumerate(batch["ner_tags"])]
        return dict(found)

    return rows.map(encode, batched=True, remove_columns=rows.column_names)


def labels_of(words: list[int | None], tags: list[int]) -> list[int]:
    """A label for each token. words: the number of its word; None for special tokens."""
    previous = [None, *words[:-1]]
    return [
        IGNORED if word is None or word == before else tags[word] for word, before in zip(words, previous, strict=True)
    ]


def accuracy(trainer: Trainer, rows: Dataset) -> float:
    """The share of words whose class the trainer's model finds."""
    found = trainer.predict(rows)
    kept = found.label_ids != IGNORED
    return float(np.mean(found.predictions.argmax(-1)[kept] == found.label_ids[kept]))


if __name__ == "__main__":
    main()
