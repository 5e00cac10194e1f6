"""`fused_way` says which way a call takes, and why not a faster one."""

import copy

import pytest
import torch
from fused_models import batch, left, packed, plain, right

from sparseq.nn import FusedWay, calibrate, fused_reason, fused_way, use_fused_encoder
from sparseq_kernels import use_backend
from sparseq_kernels.backends import runnable
from sparseq_kernels.cpu import native, native_weight

NATIVE = "native" in runnable()
has_native_code = pytest.mark.skipif(not NATIVE, reason="there is no native code here")


@pytest.fixture(autouse=True)
def _no_gradients(way):
    if way == "by ops":
        pytest.skip("the way is chosen here")
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def model():
    return packed()


@has_native_code
def test_one_call(model):
    assert fused_way(model) == fused_way(model, **batch(), attention_mask=right(11, 3, 8, 1)) == FusedWay("one call")
    assert str(fused_way(model)) == "one call"


@has_native_code
@pytest.mark.parametrize(
    "mask,reason",
    [(left(4, 11, 3, 2), "a sequence begins with padding"), (right(0, 1, 2, 3), "a sequence begins with padding")],
)
def test_masks(model, mask, reason):
    assert fused_way(model, **batch(), attention_mask=mask) == FusedWay("ops", reason)
    assert fused_reason(model, **batch(), attention_mask=mask) is None


@has_native_code
def test_a_bias_of_positions():
    assert str(fused_way(packed("MPNet"))) == "ops: its attention adds a bias of positions"


@has_native_code
def test_several_scales_of_one_input():
    def apart(converted):
        calibrate(converted, [batch(seed=1)])
        for layer in converted.bert.encoder.layer:
            layer.attention.self.key.input_scale.mul_(2)

    found = fused_way(packed(activation="static", prepare=apart))
    assert found == FusedWay("ops", "queries, keys and values quantize their input by different scales")


@has_native_code
def test_layers_that_native_code_refuses():
    found = fused_way(packed(config={"hidden_act": "gelu_new"}))
    assert found.name == "ops" and "must have one of the activations none, relu, gelu, not 'gelu_tanh'" in found.reason


@has_native_code
def test_many_tokens_where_torch_has_a_fast_product(model, monkeypatch):
    monkeypatch.setattr(native_weight, "why_not_int_mm", lambda: None)
    monkeypatch.setattr(native_weight, "has_amx", lambda: True)
    assert fused_way(model, **batch(2)).name == "one call"
    found = fused_way(model, **batch(8))
    assert found == FusedWay("ops", "torch has a faster int8 product for 88 tokens, by this processor's AMX")


@pytest.mark.parametrize("name", ["reference", "cpu"])
def test_another_backend(model, name):
    with use_backend(name):
        found = fused_way(model)
    assert found.name == "ops"
    if NATIVE:
        assert found.reason == f"the backend is {name!r}, not 'native'"


def test_no_compiler(model, monkeypatch):
    monkeypatch.setattr(native, "why_not", lambda: "no C compiler was found (cc, gcc, clang or $CC)")
    with use_backend("cpu"):
        assert str(fused_way(model)) == "ops: no C compiler was found (cc, gcc, clang or $CC)"


def test_layer_by_layer(model):
    found = fused_way(model, **batch(), output_attentions=True)
    assert found == FusedWay("layer by layer", "attention probabilities are asked for (output_attentions)")
    assert found.reason == fused_reason(model, **batch(), output_attentions=True)
    assert fused_way(use_fused_encoder(copy.deepcopy(model), False)).name == "layer by layer"
    assert "no packed linear layers" in str(fused_way(plain()))
    with torch.enable_grad():
        assert "gradients are recorded" in str(fused_way(model))


@has_native_code
def test_of_several_encoders_it_is_the_slowest(model):
    pair = torch.nn.ModuleList([model, packed("MPNet")])
    assert fused_way(pair).name == "ops"
    use_fused_encoder(pair[1], False)
    assert fused_way(pair).name == "layer by layer"
