"""SQuAD's rows as inputs, answers from a model's logits, and its metric (Rajpurkar et al. 2016, section 6.1)."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from datasets import Dataset

LONGEST_ANSWER = 30
"""In tokens."""


def features(rows: Dataset, tokenizer: Any, max_length: int) -> Dataset:
    """Question and context as one input with the answer's first and last token, `start_positions` and `end_positions`.

    A context that is too long is cut; an answer that is cut off is at the first token. `offsets` are the characters of
    the context's tokens, and (0, 0) elsewhere.
    """

    def encode(batch: dict[str, Any]) -> dict[str, Any]:
        found = tokenizer(
            batch["question"], batch["context"], truncation="only_second", max_length=max_length,
            padding="max_length", return_offsets_mapping=True,
        )  # fmt: skip
        result: dict[str, Any] = {name: found[name] for name in found if name != "offset_mapping"}
        result["offsets"], result["start_positions"], result["end_positions"] = [], [], []
        for row, answers in enumerate(batch["answers"]):
            of_context = [sequence == 1 for sequence in found.sequence_ids(row)]
            offsets = [
                list(place) if inside else [0, 0]
                for place, inside in zip(found["offset_mapping"][row], of_context, strict=True)
            ]
            first, last = answer_tokens(offsets, answers["answer_start"][0], answers["text"][0])
            result["offsets"].append(offsets)
            result["start_positions"].append(first)
            result["end_positions"].append(last)
        return result

    return rows.map(encode, batched=True, remove_columns=[name for name in rows.column_names if name != "id"])


def answer_tokens(offsets: Sequence[Sequence[int]], start: int, text: str) -> tuple[int, int]:
    """The first and last token of an answer that begins at character `start`; (0, 0) if a part is not in the input."""
    end = start + len(text)
    inside = [token for token, (a, b) in enumerate(offsets) if a < b and a < end and b > start]
    if not inside or offsets[inside[0]][0] > start or offsets[inside[-1]][1] < end:
        return 0, 0
    return inside[0], inside[-1]


def best_answer(start: np.ndarray, end: np.ndarray, offsets: Sequence[Sequence[int]], context: str) -> str:
    """The text of the span with the largest sum of logits, of at most LONGEST_ANSWER tokens of the context."""
    tokens = [token for token, (a, b) in enumerate(offsets) if a < b]
    spans = (
        (start[first] + end[last], first, last)
        for first in tokens
        for last in tokens
        if first <= last < first + LONGEST_ANSWER
    )
    found = max(spans, default=None)
    return "" if found is None else context[offsets[found[1]][0] : offsets[found[2]][1]]


def normalized(text: str) -> list[str]:
    """The words of an answer in lower case, without punctuation and articles."""
    plain = "".join(character for character in text.lower() if character not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", plain).split()


def scores(predicted: Sequence[str], answers: Sequence[Sequence[str]]) -> dict[str, float]:
    """exact_match and f1, percent: of each question the best over its answers, then the mean over questions."""
    exact = [max(float(normalized(one) == normalized(text)) for text in texts)
             for one, texts in zip(predicted, answers, strict=True)]  # fmt: skip
    f1 = [max(_f1(normalized(one), normalized(text)) for text in texts)
          for one, texts in zip(predicted, answers, strict=True)]  # fmt: skip
    return {"exact_match": 100 * float(np.mean(exact)), "f1": 100 * float(np.mean(f1))}


def _f1(one: list[str], other: list[str]) -> float:
    if not one or not other:
        return float(one == other)
    same = sum((Counter(one) & Counter(other)).values())
    return 2 * same / (len(one) + len(other))
