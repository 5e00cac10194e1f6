"""Folders with small models."""

from pathlib import Path
from typing import Any

import pytest
import torch
from small_tokenizer import write_tokenizer


@pytest.fixture
def tiny_config() -> Any:
    from transformers import BertConfig

    return BertConfig(
        vocab_size=24,
        hidden_size=32,
        num_hidden_layers=6,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=16,
        num_labels=3,
    )


@pytest.fixture
def headless(tmp_path: Path, tiny_config: Any) -> Path:
    """A folder with an encoder that has no classification head, as MiniLM's."""
    from transformers import BertModel

    torch.manual_seed(0)
    BertModel(tiny_config).save_pretrained(tmp_path / "headless")
    write_tokenizer(tmp_path / "headless")
    return tmp_path / "headless"


@pytest.fixture
def classifier(tmp_path: Path, tiny_config: Any) -> Path:
    """A folder with a three-label classifier."""
    from transformers import BertForSequenceClassification

    torch.manual_seed(0)
    tiny_config.id2label = {0: "no", 1: "maybe", 2: "yes"}
    BertForSequenceClassification(tiny_config).save_pretrained(tmp_path / "classifier")
    write_tokenizer(tmp_path / "classifier")
    return tmp_path / "classifier"
