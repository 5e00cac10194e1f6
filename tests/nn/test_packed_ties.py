"""What layers share is stored once and counted once, in packed models as in those that they were made from."""

import copy

import pytest
import torch
from torch import nn

from sparseq import load, save, size_report
from sparseq.nn import PackedLinear, QuantEmbedding, QuantSparseLinear, convert, pack

SETTINGS = {
    "dense": {},
    "unstructured": {"sparsity": 0.6},
    "4x4": {"sparsity": 0.5, "pattern": "4x4"},
    "2:4": {"sparsity": 0.5, "pattern": "2:4"},
    "learned": {"sparsity": 0.5, "scale": "lsq"},
    "4 bits": {"bits": 4, "sparsity": 0.6},
    "not quantized": {"bits": None, "sparsity": 0.6},
}


def plain(count=4):
    torch.manual_seed(0)
    layers = nn.Sequential(*(nn.Linear(64, 64) for _ in range(count)))
    for layer in layers[1:]:
        layer.weight, layer.bias = layers[0].weight, layers[0].bias
    return layers


def sizes(model):
    report = size_report(model)
    header = next(row.stored_bytes for row in report.layers if row.name == "(file header)")
    return report.parameters, report.nonzero, report.paper_bytes, report.stored_bytes - header


@pytest.mark.parametrize("version", [lambda m: m, pack], ids=["training", "packed"])
@pytest.mark.parametrize("settings", SETTINGS)
def test_four_tied_layers_take_what_one_takes(settings, version, tmp_path):
    one, four = (version(convert(plain(count), **SETTINGS[settings])) for count in (1, 4))
    assert sizes(four) == sizes(one)
    file = save(four, tmp_path)
    assert file.stat().st_size == size_report(four).stored_bytes
    again = load(tmp_path, plain(4))
    assert sizes(again) == sizes(one)
    x = torch.randn(3, 64)
    torch.testing.assert_close(again(x), four.eval()(x))


MOVES = {
    "deepcopy": copy.deepcopy,
    "half": lambda m: m.half(),
    "double": lambda m: m.double(),
    "there and back": lambda m: m.half().float(),
    "to another device": lambda m: m._apply(torch.clone),
    "to meta": lambda m: m.to("meta"),
}


@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("settings", SETTINGS)
def test_ties_outlast_moves_and_casts(settings, move):
    one, four = (MOVES[move](pack(convert(plain(count), **SETTINGS[settings]))) for count in (1, 4))
    assert sizes(four) == sizes(one)


def test_masks_that_are_equal_but_not_one_object_are_stored_once():
    four = convert(plain(4), sparsity=0.5)
    for layer in four:
        layer.mask = layer.mask.clone()
    packed = pack(four)
    assert sizes(packed) == sizes(pack(convert(plain(1), sparsity=0.5)))
    assert len({id(layer.values) for layer in packed}) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda layer: setattr(layer, "mask", ~layer.mask),
        lambda layer: setattr(layer, "settings_", QuantSparseLinear(1, 1, bits=4).settings_),
        lambda layer: setattr(layer, "pattern", QuantSparseLinear(1, 1, pattern="4x4").pattern),
        lambda layer: setattr(layer, "step_size", nn.Parameter(layer.step_size.detach() * 2)),
    ],
    ids=["mask", "bits", "pattern", "scale"],
)
def test_layers_of_other_settings_are_not_tied(change):
    two = convert(plain(2), sparsity=0.5, scale="lsq")
    change(two[1])
    packed = pack(two)
    assert packed[0].values is not packed[1].values and packed[0].bias is packed[1].bias
    for ours, theirs in zip(packed, two, strict=True):
        torch.testing.assert_close(ours.quantized_values(), theirs.pack().quantized_values())


def masked_lm():
    from transformers import BertConfig, BertForMaskedLM

    torch.manual_seed(0)
    shape = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}
    return BertForMaskedLM(BertConfig(**shape, intermediate_size=64))


# Not to the meta device, where nn.Module makes a new Parameter for each module that has one.
@pytest.mark.parametrize("move", ["as it is", *sorted(MOVES.keys() - {"to meta"})])
@pytest.mark.parametrize("settings", ["dense", "4 bits", "not quantized"])
def test_a_head_shares_its_table_and_its_bias(settings, move):
    model = pack(convert(masked_lm(), **SETTINGS[settings]))
    model = MOVES.get(move, lambda m: m)(model)
    table, head = model.bert.embeddings.word_embeddings, model.cls.predictions
    assert isinstance(head.decoder, PackedLinear) and head.decoder.values is table.values
    assert head.decoder.scale is table.scale
    rows = {row.name: row for row in size_report(model).layers}
    assert rows["cls.predictions.decoder"].stored_bytes == rows["cls.predictions.decoder"].parameters == 0
    assert head.decoder.bias is head.bias


def test_a_table_that_is_renormalized_is_not_its_heads():
    table, head = QuantEmbedding(16, 8, max_norm=0.5), QuantSparseLinear(8, 16)
    head.weight = table.weight
    packed = pack(nn.ModuleList([table, head]))
    assert packed[0].values is not packed[1].values
    torch.testing.assert_close(packed[0].weight, table.masked_weight(), rtol=0.02, atol=0.01)
