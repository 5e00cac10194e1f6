"""Rows to batches: tokens, and an order that depends on seed and epoch alone."""

from typing import Any

import pytest
from datasets import Dataset
from torch import nn
from transformers import BertConfig, DistilBertConfig

from sparseq.train.data import SimilarLengths, by_length, count_cut, describe_cut, lengths, tokenise


def order(sampler: SimilarLengths, epoch: int) -> list[int]:
    sampler.set_epoch(epoch)
    return list(sampler)


@pytest.mark.parametrize("rows", [1, 7, 8, 9, 400, 403, 1000])
def test_every_row_once_an_epoch(rows: int) -> None:
    sampler = SimilarLengths([row % 13 for row in range(rows)], 8, 0)
    for epoch in range(3):
        assert sorted(order(sampler, epoch)) == list(range(rows))
    assert len(sampler) == rows


def test_order_depends_on_seed_and_epoch_alone() -> None:
    found = [row % 13 for row in range(200)]
    sampler = SimilarLengths(found, 8, 0)
    first, second = order(sampler, 0), order(sampler, 1)
    assert first != second
    assert order(sampler, 0) == first
    assert order(SimilarLengths(found, 8, 0), 1) == second
    assert order(SimilarLengths(found, 8, 1), 0) != first


def test_batches_have_similar_lengths() -> None:
    found = [(7 * row) % 64 for row in range(800)]
    rows = list(SimilarLengths(found, 8, 0))
    spread = [max(b) - min(b) for b in ([found[r] for r in rows[i : i + 8]] for i in range(0, 800, 8))]
    assert max(spread) <= 4
    firsts = [found[rows[i]] for i in range(0, 800, 8)]
    assert firsts != sorted(firsts) and firsts != sorted(firsts, reverse=True)  # batches come in no order of length


class Reader(nn.Module):
    """Takes what a BERT takes."""

    config = BertConfig()

    def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> None: ...


class ReaderOfIds(nn.Module):
    """Takes no token types, as a DistilBERT."""

    config = DistilBertConfig()

    def forward(self, input_ids: Any, attention_mask: Any) -> None: ...


def test_tokens(tiny_tokenizer: Any) -> None:
    rows = Dataset.from_dict({"text_a": ["good film", "the " * 50], "text_b": ["bad", "plot"], "label": [1, 0]})
    tokens = tokenise(rows, tiny_tokenizer, 16, Reader())
    assert lengths(tokens) == [6, 16]
    assert tokens["labels"][:] == [1, 0]
    assert tokens["token_type_ids"][0] == [0, 0, 0, 0, 1, 1]
    assert set(tokens.column_names) == {"input_ids", "attention_mask", "token_type_ids", "labels"}
    assert list(by_length(tokens, 1)) == [[1], [0]]
    assert "token_type_ids" not in tokenise(rows, tiny_tokenizer, 16, ReaderOfIds()).column_names


def test_texts_that_are_cut_are_counted(tiny_tokenizer: Any) -> None:
    texts = ["the " * words for words in (3, 13, 14, 15, 40)]
    rows = Dataset.from_dict({"text_a": texts})
    tokens = tokenise(rows, tiny_tokenizer, 16, Reader())
    assert lengths(tokens) == [5, 15, 16, 16, 16]
    assert count_cut(rows, tokens, tiny_tokenizer, 16) == 2  # 14 words and two marks fill it, and are whole
    pairs = Dataset.from_dict({"text_a": texts, "text_b": ["film"] * 5})
    assert count_cut(pairs, tokenise(pairs, tiny_tokenizer, 16, Reader()), tiny_tokenizer, 16) == 4
    assert describe_cut(2, 16) == "2 texts cut at 16 tokens" and describe_cut(1, 128) == "1 text cut at 128 tokens"
