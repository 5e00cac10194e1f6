"""Damaged, foreign and newer files are refused on loading, in one sentence."""

import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from altered import Folder
from saved_models import classifier, sentence

from sparseq import checkpoint
from sparseq.checkpoint import WEIGHTS, load, save
from sparseq.errors import InputError
from sparseq.nn import convert, pack


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    save(pack(convert(classifier(), sparsity=0.6)), folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "copy"))


def test_missing(folder: Path, tmp_path: Path) -> None:
    assert "there is no folder" in sentence(tmp_path / "nowhere")
    (folder / "config.json").unlink()
    assert "no config.json" in sentence(folder)
    (folder / WEIGHTS).unlink()
    assert f"holds no {WEIGHTS}" in sentence(folder)


@pytest.mark.parametrize("kept", [0, 4, 8, 100, 0.3, 0.99, -1])
def test_truncated(folder: Path, kept: float) -> None:
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[: int(kept * len(whole)) if isinstance(kept, float) else kept])
    assert "is truncated or damaged" in sentence(folder)


def test_longer(folder: Path) -> None:
    with (folder / WEIGHTS).open("ab") as file:
        file.write(b"\0")
    assert "is truncated or damaged" in sentence(folder)


def test_a_flipped_bit_anywhere(folder: Path) -> None:
    whole = (folder / WEIGHTS).read_bytes()
    header = int.from_bytes(whole[:8], "little")
    draw = random.Random(0)
    places = [*range(8), *draw.sample(range(8, 8 + header), 150), *draw.sample(range(8 + header, len(whole)), 50)]
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << draw.randrange(8)
        (folder / WEIGHTS).write_bytes(damaged)
        message = sentence(folder)
        assert WEIGHTS in message, message
    (folder / WEIGHTS).write_bytes(whole)
    load(folder)


def test_foreign_files(folder: Path) -> None:
    classifier().save_pretrained(folder)
    assert "was not written by sparseq.save" in sentence(folder)
    (folder / WEIGHTS).write_bytes(b"this is no such file at all, but long enough to have a header")
    assert "is truncated or damaged" in sentence(folder)


def test_a_newer_format(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint.state, "FORMAT_VERSION", 3)
    save(classifier(), folder)
    monkeypatch.undo()
    assert "has format version 3, this sparseq reads 1 to 2; update sparseq" in sentence(folder)


def test_a_config_that_was_altered(folder: Path) -> None:
    config = folder / "config.json"
    text = config.read_text()
    for altered in (text.replace('"gelu"', '"relu"'), text.replace("1e-12", "1e-5"), text + " ", "[", ""):
        config.write_text(altered)
        assert "config.json was altered after it was saved (sha256 mismatch)" in sentence(folder)
        with pytest.raises(InputError, match="sha256 mismatch"):
            checkpoint.verify(folder)
    config.unlink()
    with pytest.raises(InputError, match="or is missing"):
        checkpoint.verify(folder)
    config.write_text(text)
    checkpoint.verify(folder)
    load(folder)


def test_a_config_that_does_not_fit(folder: Path) -> None:
    """Its checksum was made right again."""

    def altered(**changes: Any) -> str:
        parts = Folder.read(folder)
        replace(parts, config={**parts.config, **changes}).write(folder)
        message = sentence(folder)
        parts.write(folder)
        return message

    assert "is 500 x 32 (num_embeddings x embedding_dim) in the model, and 512 x 32 in" in altered(
        max_position_embeddings=500
    )
    assert "the model has no module 'bert.encoder.layer.1" in altered(num_hidden_layers=1)
    assert "does not hold 'bert.encoder.layer.2" in altered(num_hidden_layers=3)
    assert "embeddings' is 512 x 64 (num_embeddings x embedding_dim) in the model" in altered(hidden_size=64)
    for nonsense in ({"num_attention_heads": 5}, {"hidden_act": "cube"}, {"hidden_dropout_prob": "none"}):
        assert "config.json cannot be read as BertForSequenceClassification's" in altered(**nonsense)
    assert "'num_hidden_layers' is 1000000000, more than any model has" in altered(num_hidden_layers=10**9)
    assert "describes a model that is larger than the tensors in the file" in altered(num_hidden_layers=60000)
    assert "describes a model that is larger than the tensors in the file" in altered(hidden_size=2**20)
    assert "'dtype' is 'load', and must be one of float32" in altered(dtype="load")
    assert "model_type is 'gpt2', and that of BertForSequenceClassification is bert" in altered(model_type="gpt2")
    assert "is of ['AutoModel'], and the model is a BertFor" in altered(architectures=["AutoModel"])
    load(folder)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_not_finite(tmp_path: Path, bad: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused in saving, before anything is written; and in loading what another program saved."""
    model = classifier()
    with torch.no_grad():
        model.bert.encoder.layer[1].output.dense.bias[3] = bad
    with pytest.raises(InputError, match=r"'bert\.encoder\.layer\.1\.output\.dense\.bias' holds"):
        save(model, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    monkeypatch.setattr("sparseq.checkpoint.serialize.check_finite", lambda model: None)
    save(model, tmp_path)
    assert "'bert.encoder.layer.1.output.dense.bias' holds" in sentence(tmp_path)
