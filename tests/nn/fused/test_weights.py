"""Weights of each number of bits, pattern and kind of activation scale."""

import pytest
import torch
from fused_models import FAMILIES, batch, both, close, packed, right, weights_of

from sparseq.nn import QuantSparseLinear, calibrate, fused_reason

FORMS = [
    {"bits": 4},
    {"bits": 4, "sparsity": 0.5},
    {"sparsity": 0.5},
    {"pattern": "4x4", "sparsity": 0.75},
    {"pattern": "2:4", "sparsity": 0.5},
    {"bits": 4, "pattern": "4x4", "sparsity": 0.5},
    {"scale": "lsq"},
]


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("family", ["Bert", "DistilBert"])
def test_forms(family, form):
    found, expected = both(packed(family, **form), **batch(), attention_mask=right(11, 3, 8, 1))
    close(found.logits, expected.logits)


def calibrated(model):
    calibrate(model, [batch(seed=1), batch(seed=2)])


def calibrated_apart(model):
    """Query, key and value each with a scale of its own."""
    calibrated(model)
    for number, layer in enumerate(m for m in model.modules() if isinstance(m, QuantSparseLinear)):
        with torch.no_grad():
            layer.input_scale.mul_(1 + number / 50)


@pytest.mark.parametrize("prepare,count", [(calibrated, 1), (calibrated_apart, 3)])
@pytest.mark.parametrize("family", FAMILIES)
def test_static_scales(family, prepare, count):
    model = packed(family, activation="static", prepare=prepare)
    found, expected = both(model, **batch(), attention_mask=right(11, 3, 8, 1))
    close(found.logits, expected.logits)
    for layer in weights_of(model).layers:
        assert len(layer.projections) == count and all(one.input_scale is not None for one in layer.projections)


def test_static_and_dynamic_scales_side_by_side():
    first = packed(activation="static", prepare=calibrated)
    second = packed()
    for ours, theirs in zip(first.bert.encoder.layer, second.bert.encoder.layer, strict=True):
        ours.attention.self.key, ours.output.dense = theirs.attention.self.key, theirs.output.dense
    found, expected = both(first, **batch())
    close(found.logits, expected.logits)
    assert [one.input_scale is None for one in weights_of(first).layers[0].projections] == [False, True, False]


def test_layers_without_a_bias():
    model = packed()
    with torch.no_grad():
        for block in model.bert.encoder.layer:
            block.attention.self.key.bias = None
            block.output.dense.bias = None
    found, expected = both(model, **batch())
    close(found.logits, expected.logits)


def test_half_precision_on_a_cpu_is_done_layer_by_layer():
    model = packed().half()
    with torch.inference_mode():
        assert "torch.float16, which on cpu is done layer by layer" in fused_reason(model)
        assert model(**batch()).logits.dtype == torch.float16


def test_a_norm_without_a_bias():
    model = packed()
    model.bert.encoder.layer[1].output.LayerNorm.bias = None
    with torch.inference_mode():
        assert fused_reason(model) == "layer 1: the output's LayerNorm has no weight or no bias"
        assert model(**batch()).logits.isfinite().all()
