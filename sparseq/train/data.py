"""Rows to batches: tokenised once, batches of similar length in an order fixed by seed and epoch."""

from __future__ import annotations

import inspect
import secrets
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils.data import Sampler

from sparseq.onnx import OnnxModel

if TYPE_CHECKING:
    from datasets import Dataset


def inputs_of(model: nn.Module) -> frozenset[str]:
    """The names of the inputs that a model's forward accepts; a tokenizer may return more (`token_type_ids`)."""
    if isinstance(model, OnnxModel):
        return frozenset(model.input_names)
    return frozenset(inspect.signature(model.forward).parameters)


def encode(texts: Mapping[str, list[Any]], tokenizer: Any, max_length: int, model: nn.Module) -> dict[str, list[Any]]:
    """Columns of rows as columns of inputs of the model: `input_ids` and so on, and `labels` if there are any.

    texts: text columns `text_a` and, for pairs, `text_b`, and perhaps a `label`. Texts are truncated to `max_length`
    tokens.
    """
    taken = inputs_of(model)
    # An exported model reads segments only if it tells them apart.
    has_segments = isinstance(model, OnnxModel) or getattr(model.config, "type_vocab_size", 0) > 1
    # Some tokenizers, such as ALBERT's, return the segments of a pair only on request.
    segments = True if "token_type_ids" in taken and has_segments else None
    pair = (texts["text_b"],) if "text_b" in texts else ()
    tokens = tokenizer(texts["text_a"], *pair, truncation=True, max_length=max_length, return_token_type_ids=segments)
    encoded = {name: values for name, values in tokens.items() if name in taken}
    if "label" in texts:
        encoded["labels"] = texts["label"]
    return encoded


def tokenise(rows: Dataset, tokenizer: Any, max_length: int, model: nn.Module) -> Dataset:
    """The rows as `encode` gives them."""
    # Without a fingerprint, datasets makes one by pickling the tokenizer, which takes seconds. Nothing is cached by it.
    return rows.map(
        lambda batch: encode(batch, tokenizer, max_length, model),
        batched=True,
        remove_columns=rows.column_names,
        keep_in_memory=True,
        load_from_cache_file=False,
        new_fingerprint=secrets.token_hex(8),
    )


def count_cut(rows: Dataset, tokens: Dataset, tokenizer: Any, max_length: int) -> int:
    """How many texts or pairs were longer than `max_length` tokens, and so were truncated.

    rows: with `text_a` and perhaps `text_b`. tokens: the same rows, as `tokenise` returned them.
    """
    full = [row for row, length in enumerate(lengths(tokens)) if length >= max_length]
    cut = 0
    for start in range(0, len(full), 1000):  # only these can be longer, so few are tokenised twice
        batch = rows.select(full[start : start + 1000])
        pair = (batch["text_b"][:],) if "text_b" in batch.column_names else ()
        whole = tokenizer(batch["text_a"][:], *pair, truncation=False, verbose=False)["input_ids"]
        cut += sum(len(ids) > max_length for ids in whole)
    return cut


def describe_cut(cut: int, max_length: int) -> str:
    """A description of truncated texts: "12 texts cut at 128 tokens"."""
    return f"{cut:,} {'text' if cut == 1 else 'texts'} cut at {max_length} tokens"


def lengths(rows: Dataset | Mapping[str, Any]) -> list[int]:
    """The number of tokens of each tokenised row."""
    return [len(ids) for ids in rows["input_ids"]]


class SimilarLengths(Sampler[int]):
    """A sampler that yields every row once per epoch, so that consecutive `batch_size` rows have similar lengths.

    Rows are shuffled, sorted by length within pools of 50 batches, and the batches are shuffled. The order depends only
    on the seed and the epoch, so a resumed epoch has the same rows as an uninterrupted one.
    """

    pool = 50

    def __init__(self, lengths: list[int], batch_size: int, seed: int) -> None:
        self.lengths, self.batch_size, self.seed, self.epoch = lengths, batch_size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed((self.seed << 20) + self.epoch)
        order = torch.randperm(len(self), generator=generator).tolist()
        size = self.batch_size * self.pool
        pools = [sorted(order[i : i + size], key=lambda row: -self.lengths[row]) for i in range(0, len(self), size)]
        batches = [pool[i : i + self.batch_size] for pool in pools for i in range(0, len(pool), self.batch_size)]
        # a short batch must stay at the end; elsewhere it would shift all later batches
        whole = len(self) // self.batch_size
        for index in [*torch.randperm(whole, generator=generator).tolist(), *range(whole, len(batches))]:
            yield from batches[index]


def by_length(rows: Dataset | Mapping[str, Any], batch_size: int) -> Iterator[list[int]]:
    """Row numbers in batches, longest rows first.

    So prediction pads little, and memory runs out in the first batch or never.
    """
    found = lengths(rows)
    order = sorted(range(len(found)), key=lambda row: -found[row])
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]
