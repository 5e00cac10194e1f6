"""Compress a classifier of sentences with transformers' Trainer: QAT, pruning and distillation together."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from datasets import Dataset, load_dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertForSequenceClassification, Trainer

import sparseq
from examples import small
from examples.common import arguments, options, report, stored
from sparseq.hf import Distillation, DistillationTrainer, PruningCallback, QATCallback


def main() -> None:
    chosen = options(__doc__, "google/bert_uncased_L-4_H-512_A-8")
    if chosen.smallest:
        tokenizer: Any = small.tokenizer()
        models = [small.model(BertForSequenceClassification) for _ in range(2)]
        train, validation = small.reviews(), small.reviews(seed=1)
    else:
        tokenizer = AutoTokenizer.from_pretrained(chosen.model)
        models = [AutoModelForSequenceClassification.from_pretrained(chosen.model, num_labels=2) for _ in range(2)]
        data = load_dataset("nyu-mll/glue", "sst2")
        train, validation = data["train"], data["validation"]

    def tokenized(rows: Dataset) -> Dataset:
        return rows.map(lambda batch: tokenizer(batch["sentence"], truncation=True, max_length=64), batched=True)

    train, validation = tokenized(train), tokenized(validation)
    teacher, student = models

    # 1. Fine-tune a teacher.
    trainer = Trainer(teacher, arguments(chosen), train_dataset=train, processing_class=tokenizer)
    trainer.train()
    before = accuracy(trainer, validation)

    # 2. Train the student: int8 from the first step on, and 60 % of the weights removed step by step.
    sparseq.convert(student, bits=8)
    trainer = DistillationTrainer(
        student,
        arguments(chosen),
        train_dataset=train,
        processing_class=tokenizer,
        distillation=Distillation(teacher),
        callbacks=[PruningCallback(sparsity=chosen.sparsity, pattern=chosen.pattern), QATCallback()],
    )
    trainer.train()

    # 3. Pack, save, and load as anybody would.
    packed = sparseq.pack(student)
    sparseq.save(packed, chosen.out / "packed", tokenizer)
    loaded = AutoModelForSequenceClassification.from_pretrained(chosen.out / "packed")
    after = accuracy(trainer, validation)
    report({"teacher": (before, stored(teacher)), "student, packed": (after, stored(packed))}, "accuracy")
    with torch.inference_mode():
        inputs = tokenizer(validation["sentence"][:2], padding=True, return_tensors="pt")
        print("probabilities:", loaded(**inputs).logits.softmax(-1).tolist())


def accuracy(trainer: Trainer, rows: Dataset) -> float:
    """The share of rows whose class the trainer's model finds."""
    found = trainer.predict(rows)
    return float(np.mean(found.predictions.argmax(-1) == found.label_ids))


if __name__ == "__main__":
    main()
