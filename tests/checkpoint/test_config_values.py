"""What a config may say: whatever transformers has by default, and whatever a user calls the labels."""

import json
from pathlib import Path

import pytest
import torch
from altered import IDS, classifier

from sparseq import convert, load, pack, save
from sparseq.checkpoint.config import as_json, check_values
from sparseq.errors import InputError

# Words that the names of settings are made of, and names that transformers acts on.
WORDS = ["dtype", "eps", "dropout", "prob", "auto_map", "attn_implementation", "max_length", "labels", "init_std"]


def test_every_default_of_transformers() -> None:
    """Of each text model's config class; lightglue's, which fetches a detector, is refused by intention."""
    from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification

    kinds = {*AutoModelForSequenceClassification._model_mapping, *AutoModelForMaskedLM._model_mapping}
    assert len(kinds) > 50
    for kind in sorted(kinds, key=lambda kind: str(kind.__name__)):
        check_values(json.loads(as_json(kind())), kind.__name__, kind)


def test_deberta_has_no_limit_of_positions(tmp_path: Path) -> None:
    from transformers import DebertaV2Config, DebertaV2ForSequenceClassification

    torch.manual_seed(0)
    config = DebertaV2Config(
        vocab_size=16, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=8, relative_attention=True,
    )  # fmt: skip
    model = pack(convert(DebertaV2ForSequenceClassification(config).eval()))
    save(model, tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(load(tmp_path)(IDS).logits, model(IDS).logits)


@pytest.mark.parametrize("first", [0, 3])
def test_labels_of_any_name(first: int, tmp_path: Path) -> None:
    """A label is no setting, whatever it is called; number 3 is no share, and 0 is no dtype."""
    words = WORDS[first:] + WORDS[:first]
    model = classifier(id2label=dict(enumerate(words)), label2id={word: i for i, word in enumerate(words)})
    save(model, tmp_path)
    assert load(tmp_path).config.label2id == model.config.label2id  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("name", "value"),
    [("max_position_embeddings", -1), ("num_hidden_layers", -1), ("num_attention_heads", -1), ("layer_norm_eps", 1.0)],
)
def test_what_is_no_default_is_checked(name: str, value: float) -> None:
    kind = type(classifier().config)
    with pytest.raises(InputError, match=name):
        check_values({**json.loads(as_json(kind())), name: value}, "config", kind)


def test_the_place_of_code_is_not_saved(tmp_path: Path) -> None:
    """Checkpoints of hubs name code there; the class that is saved is transformers' own."""
    model = classifier()
    model.config.auto_map = {"AutoModel": "someone/somewhere--model.Model"}
    save(model, tmp_path)
    assert "auto_map" not in (tmp_path / "config.json").read_text()
    load(tmp_path)
