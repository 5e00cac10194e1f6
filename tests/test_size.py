"""Sizes: the paper's rule by hand on small models, and stored bytes against the file that `save` writes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sparseq.checkpoint import save
from sparseq.models import SIZES, config_for
from sparseq.nn import calibrate, convert, pack
from sparseq.size import paper_bytes, size_report


def classifier(**changes: Any) -> Any:
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    shape = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    return BertForSequenceClassification(BertConfig(**{**shape, "intermediate_size": 64, **changes}))


def masked_lm() -> Any:
    from transformers import BertForMaskedLM

    return BertForMaskedLM(classifier().config)


def encoder_linear_weights(model: nn.Module) -> int:
    return sum(p.numel() for n, p in model.named_parameters() if ".layer." in n and p.dim() == 2)


def test_plain_model() -> None:
    model = classifier()
    report = size_report(model)
    total = sum(p.numel() for p in model.parameters())
    assert (report.parameters, report.nonzero, report.paper_bytes) == (total, total, 4 * total)
    assert {layer.bits for layer in report.layers} == {32}
    # bf16 halves the file; the paper counts 4 bytes a parameter all the same.
    half = size_report(classifier().bfloat16())
    assert half.paper_bytes == 4 * total
    assert half.stored_bytes < 0.55 * report.stored_bytes


@pytest.mark.parametrize("bits", [4, 8, 16, None])
@pytest.mark.parametrize("sparsity", [0.0, 0.6])
def test_the_papers_rule(bits: int | None, sparsity: float) -> None:
    """4 bytes a kept parameter x bits/32, everything in the model included, before and after packing."""
    model = classifier()
    total, prunable = sum(p.numel() for p in model.parameters()), encoder_linear_weights(model)
    convert(model, bits=bits, sparsity=sparsity)
    expected = paper_bytes(total, prunable, sparsity, bits or 32)
    for version in (model, pack(model)):
        report = size_report(version)
        assert report.parameters == total
        assert report.nonzero == total - round(prunable * sparsity)
        # each of about 30 rows rounds a half byte of 4-bit values up
        assert 0 <= report.paper_bytes - expected <= (30 if bits == 4 else 0)


def test_weights_left_out_count_four_bytes() -> None:
    model = classifier()
    total = sum(p.numel() for p in model.parameters())
    words = model.bert.embeddings.word_embeddings.weight.numel()
    convert(model, exclude=("*word_embeddings",))
    report = size_report(model)
    assert report.paper_bytes == total + 3 * words
    by_name = {layer.name: layer for layer in report.layers}
    assert by_name["bert.embeddings.word_embeddings"].bits == 32
    assert by_name["bert.embeddings.LayerNorm"].bits == 8


def test_vectors_follow_most_of_the_weights() -> None:
    model = nn.Sequential(nn.Linear(16, 16), nn.LayerNorm(16), nn.Linear(16, 4))
    convert(model, bits=8, include=("0",))
    convert(model, bits=4, include=("2",))
    assert [layer.paper_bytes for layer in size_report(model).layers] == [256 + 16, 32, 64 // 2 + 4, 0]


@pytest.mark.parametrize("scale", ["max", "lsq"])
def test_scales_are_stored_but_are_no_parameters(scale: str) -> None:
    model = nn.Sequential(nn.Linear(8, 4))
    convert(model, activation="static", scale=scale)
    calibrate(model, [{"input": torch.randn(2, 8)}])
    for version, stored in (
        (model, 4 * (32 + 4 + 1 + (4 if scale == "lsq" else 0))),
        (pack(model), 32 + 4 * (4 + 4 + 1)),
    ):
        (layer, header) = size_report(version).layers
        assert (layer.parameters, layer.paper_bytes, layer.stored_bytes) == (36, 36, stored)
        assert (header.name, header.parameters) == ("(file header)", 0)


def packed(model: nn.Module, **settings: Any) -> nn.Module:
    return pack(convert(model, **settings))


def half_precision() -> nn.Module:
    return nn.Sequential(nn.Linear(7, 5, bias=False), nn.BatchNorm1d(5), nn.Linear(5, 1)).to(torch.float16)


VARIANTS: dict[str, Callable[[], nn.Module]] = {
    "plain": classifier,
    "bf16": lambda: classifier().bfloat16(),
    "sequential": half_precision,
    "masked LM, tied": masked_lm,
    "training": lambda: convert(classifier(), sparsity=0.5, scale="lsq"),
    "int8": lambda: packed(classifier()),
    "int8 60 %": lambda: packed(classifier(), sparsity=0.6),
    "int8 4x4": lambda: packed(classifier(), sparsity=0.6, pattern="4x4"),
    "int4 2:4": lambda: packed(classifier(), bits=4, sparsity=0.5, pattern="2:4"),
    "int16": lambda: packed(classifier(), bits=16),
    "pruned only": lambda: packed(classifier(), bits=None, sparsity=0.6),
    "masked LM, packed": lambda: packed(masked_lm()),
    "names to escape": lambda: nn.ModuleDict({'é"\\\n': nn.Linear(3, 3)}),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_stored_bytes_are_the_files(name: str, tmp_path: Path) -> None:
    model = VARIANTS[name]()
    file = save(model, tmp_path)
    report = size_report(model)
    assert report.stored_bytes == file.stat().st_size
    assert report.stored_bytes == sum(layer.stored_bytes for layer in report.layers)


def test_tied_weights_count_once() -> None:
    model = masked_lm()
    total = sum(p.numel() for p in model.parameters())
    decoder = "cls.predictions.decoder"
    assert size_report(model).parameters == total
    convert(model)
    report = size_report(model)
    assert report.parameters == report.paper_bytes == total
    assert next(layer for layer in report.layers if layer.name == decoder).parameters == 0


def test_on_the_meta_device() -> None:
    from transformers import BertModel

    with torch.device("meta"):
        model = BertModel(config_for("large"))
    report = size_report(model)
    assert report.parameters == SIZES["large"].counts().total
    assert report.paper_bytes == paper_bytes(report.parameters)


def test_table_folds_blocks_and_as_dict_keeps_them() -> None:
    model = convert(classifier(num_hidden_layers=12), sparsity=0.6)
    report = size_report(model)
    lines = str(report).splitlines()
    assert len(lines) < 25
    assert len({len(line) for line in lines}) == 1
    folded = next(line.split() for line in lines if "encoder.layer.*.attention.self.query" in line)
    assert folded[1:4] == ["QuantSparseLinear", "12", f"{12 * (32 * 32 + 32):,}"]
    assert lines[-1].split() == [
        "total",
        f"{report.parameters:,}",
        f"{report.nonzero:,}",
        f"{report.nonzero / report.parameters:.1%}",
        f"{report.paper_bytes:,}",
        f"{report.stored_bytes:,}",
    ]
    facts = json.loads(json.dumps(report.as_dict()))
    assert facts["parameters"] == report.parameters
    assert sum(layer["nonzero"] for layer in facts["layers"]) == facts["nonzero"]
    assert len(facts["layers"]) > 12 * 8


def test_table_of_many_different_layers_has_an_end() -> None:
    model = nn.ModuleDict({f"part{i}": nn.Linear(2, 2) for i in range(100)})
    lines = str(size_report(model)).splitlines()
    assert len(lines) < 50
    assert any(line.startswith("(others)") for line in lines)
