"""Compress a sentence-transformers model: QAT with its own trainer, packed, and how close the embeddings stay."""

from __future__ import annotations

from typing import Any

import torch
from datasets import Dataset, load_dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import CosineSimilarityLoss
from torch.nn.functional import cosine_similarity
from transformers import BertModel

import sparseq
from examples import small
from examples.common import arguments, options, report, stored
from sparseq.hf import ParameterGroupsMixin, PruningCallback, QATCallback


class EmbeddingTrainer(ParameterGroupsMixin, SentenceTransformerTrainer):  # type: ignore[misc]
    """The trainer of sentence-transformers with sparseq's groups of parameters."""


def main() -> None:
    chosen = options(__doc__, "sentence-transformers/all-MiniLM-L6-v2")
    if chosen.smallest:
        folder = chosen.out / "plain"
        small.model(BertModel).save_pretrained(folder)
        small.tokenizer().save_pretrained(folder)
        source, train, texts = str(folder), pairs(), small.reviews(seed=1)["sentence"]
    else:
        source = chosen.model
        data = load_dataset("sentence-transformers/stsb")
        train, texts = data["train"], data["validation"]["sentence1"]
    plain = SentenceTransformer(source, device="cpu")
    student: Any = SentenceTransformer(source, device="cpu")

    # The whole model is converted: what sentence-transformers has around the encoder stays as it is.
    sparseq.convert(student, bits=8)
    settings = arguments(chosen).to_dict()
    names = ("output_dir", "num_train_epochs", "learning_rate", "per_device_train_batch_size", "report_to", "seed")
    trainer = EmbeddingTrainer(
        student,
        SentenceTransformerTrainingArguments(**{name: settings[name] for name in names}, save_strategy="no"),
        train_dataset=train,
        loss=CosineSimilarityLoss(student),
        callbacks=[PruningCallback(sparsity=chosen.sparsity, pattern=chosen.pattern), QATCallback()],
    )
    trainer.train()

    packed: Any = sparseq.pack(student)
    packed.save_pretrained(str(chosen.out / "packed"))
    loaded = SentenceTransformer(str(chosen.out / "packed"), device="cpu")
    report(
        {
            "trained, beside the original": (closeness(student, plain, texts), stored(student)),
            "packed, beside the trained": (closeness(loaded, student, texts), stored(packed)),
        },
        "cosine",
    )


def pairs() -> Dataset:
    """Two sentences, and 1.0 if both are good or both bad, else 0.0."""
    one, other = small.reviews(), small.reviews(seed=2)
    rows = zip(one["sentence"], other["sentence"], one["label"], other["label"], strict=True)
    return Dataset.from_list([{"a": a, "b": b, "score": float(x == y)} for a, b, x, y in rows])


def closeness(one: Any, other: Any, texts: list[str]) -> float:
    """The mean cosine between the two models' embeddings of the same texts."""
    first, second = (torch.from_numpy(model.encode(list(texts))) for model in (one, other))
    return float(cosine_similarity(first, second).mean())


if __name__ == "__main__":
    main()
