"""Digests tell rows, models and tokenizers apart."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification, BertTokenizerFast, BertweetTokenizer

from sparseq.distill import (
    digest_model,
    digest_texts,
    digest_tokenizer,
)


def test_digests_tell_rows_and_models_apart() -> None:
    assert digest_texts([["a", "b"]]) == digest_texts([["a", "b"]])
    different = [[["a", "b"]], [["b", "a"]], [["ab"]], [["a"], ["b"]], [["a", "b"], ["", ""]], [['a", "b']]]
    assert len({digest_texts(columns) for columns in different}) == len(different)
    torch.manual_seed(0)
    model = nn.Linear(2, 2)
    before = digest_model(model)
    assert digest_model(model) == before
    with torch.no_grad():
        model.weight[0, 0] += 1e-6
    assert digest_model(model) != before


@pytest.mark.parametrize(
    "changes",
    [{"hidden_act": "relu"}, {"layer_norm_eps": 1e-5}, {"num_attention_heads": 4}, {"is_decoder": True}],
    ids=str,
)
def test_one_models_weights_under_another_configuration(changes: dict[str, Any]) -> None:
    """Each gives other outputs, though every tensor is the same."""
    settings = {"vocab_size": 5, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    first = BertForSequenceClassification(BertConfig(**settings, intermediate_size=8))
    other = BertForSequenceClassification(BertConfig(**{**settings, "intermediate_size": 8, **changes}))
    other.load_state_dict(first.state_dict())
    assert digest_model(other) != digest_model(first)
    first.config._name_or_path = "elsewhere"
    again = BertForSequenceClassification(BertConfig(**settings, intermediate_size=8))
    again.load_state_dict(first.state_dict())
    assert digest_model(again) == digest_model(first)


TOKENIZERS: dict[str, dict[str, Any]] = {
    "lower case": {"do_lower_case": False},
    "accents": {"strip_accents": False},
    "Chinese characters": {"tokenize_chinese_chars": False},
    "side of padding": {"padding_side": "left"},
    "side of truncation": {"truncation_side": "left"},
    "special tokens": {"cls_token": "[SEP]"},
    "inputs": {"model_input_names": ["input_ids", "attention_mask"]},
}


@pytest.mark.parametrize("changed", TOKENIZERS)
def test_tokenizers_with_one_vocabulary(changed: str, tmp_path: Path) -> None:
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "Good"]))
    first, other = BertTokenizerFast(str(path)), BertTokenizerFast(str(path), **TOKENIZERS[changed])
    assert first.get_vocab() == other.get_vocab()
    before = digest_tokenizer(first)
    assert digest_tokenizer(other) != before
    first(["good", "Good good"], truncation=True, max_length=3, padding=True)  # leaves its settings behind
    assert digest_tokenizer(first) == before == digest_tokenizer(BertTokenizerFast(str(path)))


def test_a_tokenizer_in_python_is_the_same_in_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "vocab.txt").write_text("good 1\nfilm 1\ngo@@ 1\n")
    (tmp_path / "bpe.codes").write_text("g o 2\nf i 1\n")
    made = BertweetTokenizer(str(tmp_path / "vocab.txt"), str(tmp_path / "bpe.codes"))
    assert getattr(made, "backend_tokenizer", None) is None
    made.save_pretrained(tmp_path / "saved")
    shutil.copytree(tmp_path / "saved", tmp_path / "copied")
    shutil.copytree(tmp_path / "saved", tmp_path / "altered")
    (tmp_path / "altered" / "bpe.codes").write_text("f i 2\ng o 1\n")
    monkeypatch.chdir(tmp_path)
    places = ("saved", str(tmp_path / "saved"), "copied")
    digests = {digest_tokenizer(AutoTokenizer.from_pretrained(place)) for place in places}
    assert len(digests) == 1
    assert digest_tokenizer(AutoTokenizer.from_pretrained("altered")) not in digests
