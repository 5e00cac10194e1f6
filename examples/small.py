"""Small random models, a tokenizer and made-up rows, for trying an example without a download."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import BertConfig, BertTokenizerFast

GOOD = ["good", "great", "lovely", "superb"]
BAD = ["bad", "poor", "awful", "dull"]
OTHER = ["the", "a", "film", "story", "plot", "was", "is", "and", "very", "music"]
NAMES = ["paris", "london", "anna", "peter"]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *GOOD, *BAD, *OTHER, *NAMES, "?", "who", "where"]


def tokenizer() -> BertTokenizerFast:
    """A WordPiece tokenizer that knows the words of the rows here."""
    path = Path(tempfile.mkdtemp()) / "vocab.txt"
    path.write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    return BertTokenizerFast(str(path), model_max_length=32)


def model(kind: Any, seed: int = 0, **changes: Any) -> Any:
    """A random two-layer BERT of width 32 with the head of `kind`."""
    torch.manual_seed(seed)
    settings = {"vocab_size": len(WORDS), "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    settings |= {"intermediate_size": 64, "max_position_embeddings": 32}
    return kind(BertConfig(**{**settings, **changes}))


def reviews(count: int = 64, seed: int = 0) -> Dataset:
    """Columns sentence and label (1 if the sentence has a good word)."""
    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        label = draw.randrange(2)
        words = [draw.choice(OTHER) for _ in range(5)]
        words.insert(draw.randrange(6), draw.choice(GOOD if label else BAD))
        rows.append({"sentence": " ".join(words), "label": label})
    return Dataset.from_list(rows)


def entities(count: int = 64, seed: int = 0) -> Dataset:
    """Columns tokens (words) and ner_tags (1 for a name, 0 otherwise)."""
    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        words = [draw.choice(OTHER if draw.random() < 0.7 else NAMES) for _ in range(6)]
        rows.append({"tokens": words, "ner_tags": [int(word in NAMES) for word in words]})
    return Dataset.from_list(rows)


def questions(count: int = 64, seed: int = 0) -> Dataset:
    """Rows in the form of SQuAD: id, question, context, and answers with text and answer_start."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        words = [draw.choice(OTHER) for _ in range(6)]
        answer = draw.choice(NAMES)
        words.insert(draw.randrange(7), answer)
        context = " ".join(words)
        answers = {"text": [answer], "answer_start": [context.index(answer)]}
        rows.append({"id": str(number), "question": "who is in the story ?", "context": context, "answers": answers})
    return Dataset.from_list(rows)
