"""Which layers of an encoder are kept."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch

from sparseq import models
from sparseq.errors import InputError
from sparseq.models.cutting import spaced_layers


@pytest.mark.parametrize(
    ("layers", "kept"), [(3, (0, 2, 5)), (2, (0, 5)), (1, (5,)), (6, (0, 1, 2, 3, 4, 5)), ((5, 1), (5, 1))]
)
def test_keeps_layers(headless: Path, layers: int | tuple[int, ...], kept: tuple[int, ...]) -> None:
    whole, _ = models.load_model(headless, num_labels=2)
    cut, tokenizer = models.load_model(headless, num_labels=2, layers=layers)
    assert cut.config.num_hidden_layers == len(cut.bert.encoder.layer) == len(kept)
    for mine, index in zip(cut.bert.encoder.layer, kept, strict=True):
        for a, b in zip(mine.parameters(), whole.bert.encoder.layer[index].parameters(), strict=True):
            assert torch.equal(a, b)
    cut(**tokenizer("word1", return_tensors="pt"))


def test_spaced_layers_are_different_and_go_from_the_first_to_the_last() -> None:
    assert spaced_layers(6, 12) == (0, 2, 4, 7, 9, 11) and spaced_layers(4, 6) == (0, 2, 3, 5)
    for total in range(2, 50):
        for count in range(2, total + 1):
            kept = spaced_layers(count, total)
            steps = {after - before for before, after in pairwise(kept)}
            assert (kept[0], kept[-1], len(kept)) == (0, total - 1, count)
            assert min(steps) >= 1 and max(steps) - min(steps) <= 1


@pytest.mark.parametrize("layers", [0, 7, -1, (), (0, 0), (0, 6)])
def test_refuses_impossible_layers(headless: Path, layers: int | tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="layers is"):
        models.load_model(headless, num_labels=2, layers=layers)
