"""Compress a model that finds answers in a text: SQuAD, with exact match and F1."""

from __future__ import annotations

from typing import Any

from datasets import Dataset, load_dataset
from transformers import AutoModelForQuestionAnswering, AutoTokenizer, BertForQuestionAnswering, Trainer

import sparseq
from examples import small
from examples.common import arguments, options, report, stored
from examples.squad import best_answer, features, scores
from sparseq.hf import Distillation, DistillationTrainer, PruningCallback, QATCallback


def main() -> None:
    chosen = options(__doc__, "google/bert_uncased_L-4_H-512_A-8")
    if chosen.smallest:
        tokenizer: Any = small.tokenizer()
        models = [small.model(BertForQuestionAnswering) for _ in range(2)]
        train_rows, rows = small.questions(), small.questions(seed=1)
    else:
        tokenizer = AutoTokenizer.from_pretrained(chosen.model)
        models = [AutoModelForQuestionAnswering.from_pretrained(chosen.model) for _ in range(2)]
        data = load_dataset("rajpurkar/squad")
        train_rows, rows = data["train"], data["validation"]
    length = 32 if chosen.smallest else 384
    train, validation = features(train_rows, tokenizer, length), features(rows, tokenizer, length)
    teacher, student = models

    trainer = Trainer(teacher, arguments(chosen), train_dataset=train)
    trainer.train()
    before = evaluate(trainer, validation, rows)

    sparseq.convert(student, bits=8)
    trainer = DistillationTrainer(
        student,
        arguments(chosen),
        train_dataset=train,
        distillation=Distillation(teacher),
        callbacks=[PruningCallback(sparsity=chosen.sparsity, pattern=chosen.pattern), QATCallback()],
    )
    trainer.train()
    after = evaluate(trainer, validation, rows)

    packed = sparseq.pack(student)
    sparseq.save(packed, chosen.out / "packed", tokenizer)
    AutoModelForQuestionAnswering.from_pretrained(chosen.out / "packed")
    for measure in ("exact_match", "f1"):
        found = {"teacher": (before[measure], stored(teacher)), "student, packed": (after[measure], stored(packed))}
        report(found, measure)


def evaluate(trainer: Trainer, validation: Dataset, rows: Dataset) -> dict[str, float]:
    """SQuAD's exact match and F1 of the trainer's model."""
    starts, ends = trainer.predict(validation).predictions[:2]
    predicted = [
        best_answer(start, end, offsets, context)
        for start, end, offsets, context in zip(starts, ends, validation["offsets"], rows["context"], strict=True)
    ]
    return scores(predicted, [answers["text"] for answers in rows["answers"]])


if __name__ == "__main__":
    main()
