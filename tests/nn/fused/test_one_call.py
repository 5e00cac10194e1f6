"""Which calls one call of native code takes, and what it gives for each mask."""

import copy
import re

import pytest
import torch
from cpu_backends import LACKING, on
from fused_models import base, batch, both, close, left, packed, right, weights_of

from sparseq.nn import fused_way, use_fused_encoder
from sparseq.nn.fused import encoder as encoder_module
from sparseq_kernels import InputError, use_backend, use_instruction_set
from sparseq_kernels.cpu import encoder as native_encoder
from sparseq_kernels.cpu import native_weight
from sparseq_kernels.cpu.encoder import NativeEncoder
from sparseq_kernels.cpu.native_weight import is_wanted
from sparseq_kernels.instruction_sets import available

pytestmark = pytest.mark.skipif(not is_wanted(1), reason="native code is not used here")


@pytest.fixture
def taken(monkeypatch):
    """The lengths of sequences of each call that is one of native code."""
    found = []
    call = NativeEncoder.encode_

    def counting(self, x, tokens, *rest):
        found.append(tokens._room[: tokens.batch + 1].diff().tolist())
        return call(self, x, tokens, *rest)

    monkeypatch.setattr(NativeEncoder, "encode_", counting)
    return found


@pytest.fixture
def ops(monkeypatch):
    """Counts the calls that are a composition of ops."""
    found = []
    by_ops = encoder_module.encode_by_ops
    monkeypatch.setattr(encoder_module, "encode_by_ops", lambda *a, **k: found.append(1) or by_ops(*a, **k))
    return found


@pytest.fixture(autouse=True)
def _one_way(way):
    if way == "by ops":
        pytest.skip("these are of the other way")


@pytest.mark.parametrize(
    "mask,lengths", [(None, [11, 11, 11]), (right(11, 4, 1), [11, 4, 1]), (right(3, 3, 3), [3, 3, 3])]
)
def test_real_tokens_alone_are_computed(mask, lengths, taken):
    model = packed()
    fused, layered = both(model, **batch(3), attention_mask=mask, output_hidden_states=True)
    assert taken == [lengths]
    close(fused.logits, layered.logits)
    for ours, theirs in zip(fused.hidden_states, layered.hidden_states, strict=True):
        if mask is None:
            close(ours, theirs)
        else:
            close(ours[mask.bool()], theirs[mask.bool()])
    if mask is not None:
        assert not fused.hidden_states[-1][~mask.bool()].any()


def test_gaps_in_a_mask_are_left_out(taken):
    mask = right(11, 11)
    mask[0, 3:6] = 0
    fused, layered = both(packed(), **batch(2), attention_mask=mask)
    assert taken == [[8, 11]]
    close(fused.logits, layered.logits)


@pytest.mark.parametrize("mask", [left(4, 11), right(0, 11)], ids=["left padding", "no real token"])
def test_sequences_that_begin_with_padding_are_left_to_the_ops(mask, taken, ops):
    fused, layered = both(packed(), **batch(2), attention_mask=mask)
    assert not taken and ops
    close(fused.logits, layered.logits)


def test_a_bias_of_positions_is_left_to_the_ops(taken, ops):
    both(packed("MPNet"), **batch(2))
    assert not taken and ops


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_another_backend_is_obeyed(backend, taken, ops):
    with use_backend(backend):
        both(packed(), **batch(2))
    assert not taken and ops


@pytest.mark.parametrize("amx", [True, False])
def test_many_tokens_are_left_to_torchs_product_where_the_processor_has_amx(amx, taken, ops, monkeypatch):
    monkeypatch.setattr(native_weight, "why_not_int_mm", lambda: None)
    monkeypatch.setattr(native_weight, "has_amx", lambda: amx)
    model, most = packed(), native_weight.MOST_TOKENS_BESIDE_AMX
    both(model, **batch(most // 8, 8))
    assert len(taken) == 1 and not ops
    both(model, **batch(most // 8 + 1, 8))
    assert (len(taken) == 1 and ops) if amx else (len(taken) == 2 and not ops)


@pytest.mark.parametrize("lacking", [[], pytest.param(LACKING, marks=pytest.mark.slow)], ids=["own", "emulated"])
def test_each_instruction_set_has_its_own_form(lacking, taken):
    model, found = packed(), []
    names = [name for name in available() if name != "portable" and not name.startswith("emulated")]
    names += [name.removeprefix("native ") for name in lacking]
    for name in names:
        with use_instruction_set(name):
            found.append(both(model, **batch(2))[0].logits)
    assert len(taken) == len(names) and set(weights_of(model).native) == set(names)
    for other in found[1:]:
        close(other, found[0])


def test_portable_code_is_left_to_the_ops(taken, ops):
    with use_instruction_set("portable"):
        model = packed()
        both(model, **batch(2))
        assert not taken and ops and not weights_of(model).native
        with torch.no_grad():
            assert "in portable C" in fused_way(model, **batch(2)).reason


@pytest.mark.parametrize("pattern,blocks", [("4x4", True), ("8x8", True), ("unstructured", False)])
def test_pruned_weights_are_multiplied_in_blocks(pattern, blocks, taken):
    model = packed(sparsity=0.75, pattern=pattern)
    fused, layered = both(model, **batch(2))
    close(fused.logits, layered.logits)
    (native,) = weights_of(model).native.values()
    assert all((len(names) == 4) == blocks for names in native.in_blocks)


def test_fewer_heads_than_features_are_left_to_the_ops(taken, ops):
    def narrow(converted):
        for layer in converted.bert.encoder.layer:
            attention = layer.attention.self
            for name in ("query", "key", "value"):
                setattr(attention, name, _part(getattr(attention, name), slice(16), slice(None)))
            layer.attention.output.dense = _part(layer.attention.output.dense, slice(None), slice(16))
            attention.num_attention_heads, attention.all_head_size = 2, 16

    fused, layered = both(packed(prepare=narrow), **batch(2))
    assert not taken and ops
    close(fused.logits, layered.logits)


def test_a_scale_that_is_no_scale_is_left_to_the_ops(taken, ops):
    model = packed(activation="static", prepare=lambda converted: _calibrate(converted))
    base(model).encoder.layer[0].output.dense.input_scale.fill_(float("nan"))
    fused, layered = both(model, **batch(2))
    assert not taken and ops and torch.equal(fused.logits.isnan(), layered.logits.isnan())


def _part(layer, rows, columns):
    from sparseq.nn import QuantSparseLinear

    weight, bias = layer.weight[rows, columns].detach(), layer.bias[rows].detach()
    linear = torch.nn.Linear(weight.shape[1], weight.shape[0])
    linear.weight, linear.bias = torch.nn.Parameter(weight.clone()), torch.nn.Parameter(bias.clone())
    return QuantSparseLinear.from_linear(linear)


def test_static_scales(taken):
    model = packed(activation="static", prepare=lambda converted: _calibrate(converted))
    fused, layered = both(model, **batch(2))
    close(fused.logits, layered.logits)


def _calibrate(model):
    from sparseq import calibrate

    with torch.no_grad():
        calibrate(model, [batch(4)])


def test_attention_in_bf16_is_asked_for_and_refused(taken):
    model, x = packed(), batch(2)

    def logits(model):
        with torch.inference_mode():
            return model(**x).logits

    exact = logits(model)
    if (reason := native_encoder.why_no_bf16_attention()) is not None:
        with pytest.raises(InputError, match=f"attention cannot multiply in bf16: {re.escape(reason)}"):
            use_fused_encoder(model, bf16_attention=True)
        assert not base(model).bf16_attention
        return
    use_fused_encoder(model, bf16_attention=True)
    near = logits(copy.deepcopy(model))
    assert 0 < (near - exact).norm() / exact.norm() < 2e-2
    assert torch.equal(logits(use_fused_encoder(model)), near)
    assert torch.equal(logits(use_fused_encoder(model, bf16_attention=False)), exact)


@pytest.mark.slow
@pytest.mark.parametrize("name", LACKING)
def test_attention_in_bf16_where_it_is_emulated(name, taken, monkeypatch):
    monkeypatch.setattr(native_encoder, "has_avx512_bf16", lambda: True)
    with on(name):
        test_attention_in_bf16_is_asked_for_and_refused(taken)
        assert native_encoder.why_no_bf16_attention() is None
