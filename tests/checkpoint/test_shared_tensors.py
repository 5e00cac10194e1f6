"""Tensors that modules share are stored once and shared again after loading."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from saved_models import assert_same, masked_lm
from torch import nn

from sparseq import checkpoint
from sparseq.checkpoint import WEIGHTS, load, save
from sparseq.nn import QuantEmbedding, QuantSparseLinear, convert, pack


def test_tied_weights_stay_tied(tmp_path: Path) -> None:
    model = masked_lm()
    for version in (model, convert(model, sparsity=0.5)):
        save(version, tmp_path)
        with safe_open(tmp_path / WEIGHTS, framework="pt") as file:
            assert "cls.predictions.decoder.weight" not in file.keys()  # noqa: SIM118 (not a dict)
        loaded: Any = load(tmp_path)
        assert_same(loaded, version)
        assert loaded.cls.predictions.decoder.weight is loaded.bert.embeddings.word_embeddings.weight
        assert loaded.cls.predictions.decoder.bias is loaded.cls.predictions.bias
        assert len(list(loaded.parameters())) == len(list(version.parameters()))
    assert isinstance(loaded.bert.embeddings.word_embeddings, QuantEmbedding)


@pytest.mark.parametrize("count", [2, 4, 7])
@pytest.mark.parametrize("quantized", [False, True])
def test_many_tied_layers_are_stored_once(count: int, quantized: bool, tmp_path: Path) -> None:
    def tied() -> Any:
        layers = nn.Sequential(*(nn.Linear(64, 64) for _ in range(count)))
        for layer in layers:
            layer.weight = layers[0].weight
        return layers

    model = convert(tied()) if quantized else tied()
    file = save(model, tmp_path)
    held = checkpoint.contents(model)
    assert held.aliases == {f"{i}.weight": "0.weight" for i in range(1, count)}
    assert file.stat().st_size < 4 * 64 * 64 + count * (4 * 64 + 1500)
    loaded: Any = load(tmp_path, tied())
    assert all(layer.weight is loaded[0].weight for layer in loaded)
    assert_same(loaded, model.eval())


def test_untied_weights_that_are_equal_stay_apart(tmp_path: Path) -> None:
    model = nn.Sequential(nn.LayerNorm(4), nn.LayerNorm(4))
    save(model, tmp_path)
    loaded: Any = load(tmp_path, nn.Sequential(nn.LayerNorm(4), nn.LayerNorm(4)))
    assert loaded[0].weight is not loaded[1].weight


def test_shared_buffers_and_modules(tmp_path: Path) -> None:
    shared = QuantSparseLinear(4, 4)
    model: Any = pack(nn.Sequential(shared, nn.ReLU(), shared))
    assert model[0] is model[2]
    file = save(model, tmp_path)
    loaded: Any = load(tmp_path, nn.Sequential(again := nn.Linear(4, 4), nn.ReLU(), again))
    assert loaded[0] is loaded[2]
    assert_same(loaded, model)
    with safe_open(file, framework="pt") as opened:
        assert {name.split(".")[0] for name in opened.keys()} == {"0"}  # noqa: SIM118 (not a dict)


def test_views_of_one_storage_are_stored_apart(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    model = nn.Module()
    for name, view in {"whole": base, "turned": base.t(), "part": base[1:], "scalar": base[0, 0]}.items():
        model.register_buffer(name, view)
    save(model, tmp_path)
    skeleton = nn.Module()
    for name, tensor in model.named_buffers():
        skeleton.register_buffer(name, torch.empty(tensor.shape))
    assert_same(load(tmp_path, skeleton), model)
