"""Which layers of an encoder are kept."""

from pathlib import Path

import pytest
import torch

from sparseq import models
from sparseq.errors import InputError


@pytest.mark.parametrize(("layers", "kept"), [(3, (0, 2, 4)), (1, (0,)), (6, (0, 1, 2, 3, 4, 5)), ((5, 1), (5, 1))])
def test_keeps_layers(headless: Path, layers: int | tuple[int, ...], kept: tuple[int, ...]) -> None:
    whole, _ = models.load_model(headless, num_labels=2)
    cut, tokenizer = models.load_model(headless, num_labels=2, layers=layers)
    assert cut.config.num_hidden_layers == len(cut.bert.encoder.layer) == len(kept)
    for mine, index in zip(cut.bert.encoder.layer, kept, strict=True):
        for a, b in zip(mine.parameters(), whole.bert.encoder.layer[index].parameters(), strict=True):
            assert torch.equal(a, b)
    cut(**tokenizer("word1", return_tensors="pt"))


@pytest.mark.parametrize("layers", [0, 7, -1, (), (0, 0), (0, 6)])
def test_refuses_impossible_layers(headless: Path, layers: int | tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="layers is"):
        models.load_model(headless, num_labels=2, layers=layers)
