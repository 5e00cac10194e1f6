"""What was read from an encoder is read anew when its modules or tensors change, however they do."""

import pytest
import torch
from fused_models import batch, both, close, is_fused, linears, packed, weights_of
from torch import nn

from sparseq.nn import PackedLinear, calibrate, fused_reason, use_sparse_kernels


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def stored(found):
    return dict(found.state_dict())


def held(found):
    return {**dict(found.named_buffers()), **dict(found.named_parameters())}


def in_place(a, b):
    for name, tensor in stored(b).items():
        held(a)[name].copy_(tensor)


def by_data(a, b):
    for name, tensor in stored(b).items():
        held(a)[name].data = tensor.clone()


def by_data_and_expand(a, b):
    """Written through `.data`, which no version counts."""
    for name, tensor in stored(b).items():
        held(a)[name].data.copy_(tensor)
    for layer in linears(a):
        layer.expand()


def by_attribute(a, b):
    others = dict(b.named_modules())
    for name, module in a.named_modules():
        for key in list(module._buffers):
            if key in others[name]._buffers and not key.startswith("_"):
                module._buffers[key] = others[name]._buffers[key]
        for key in list(module._parameters):
            module._parameters[key] = others[name]._parameters[key]


def by_modules(a, b):
    for ours, theirs in zip(a.bert.encoder.layer, b.bert.encoder.layer, strict=True):
        ours.attention.self.query = theirs.attention.self.query
        ours.attention.self.key = theirs.attention.self.key
        ours.attention.self.value = theirs.attention.self.value
        ours.attention.output = theirs.attention.output
        ours.intermediate, ours.output = theirs.intermediate, theirs.output
    a.bert.embeddings, a.bert.pooler, a.classifier = b.bert.embeddings, b.bert.pooler, b.classifier


def by_blocks(a, b):
    a.bert.encoder.layer = b.bert.encoder.layer
    a.bert.embeddings, a.bert.pooler, a.classifier = b.bert.embeddings, b.bert.pooler, b.classifier


def by_encoder(a, b):
    a.bert.encoder = b.bert.encoder
    a.bert.embeddings, a.bert.pooler, a.classifier = b.bert.embeddings, b.bert.pooler, b.classifier


CHANGES = {
    "copy_": in_place,
    ".data =": by_data,
    ".data.copy_, then expand": by_data_and_expand,
    "the dictionaries": by_attribute,
    "the layers": by_modules,
    "the list of blocks": by_blocks,
    "the encoder": by_encoder,
    "load_state_dict": lambda a, b: a.load_state_dict(stored(b)),
    "load_state_dict, assigned": lambda a, b: a.load_state_dict(stored(b), assign=True),
}
FORMS = [{}, {"bits": 4}, {"pattern": "4x4", "sparsity": 0.5}]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_changed_tensors_are_what_is_multiplied_by(form, change):
    a, b = packed(**form), packed(**form, prepare=changed)
    before, wanted = a(**batch()).logits, b(**batch()).logits
    assert (before - wanted).norm() > 0.05 * wanted.norm()
    CHANGES[change](a, b)
    found, expected = both(a, **batch())
    close(found.logits, expected.logits)
    close(found.logits, wanted)


def changed(model):
    """Gives it other weights under the same masks."""
    for number, parameter in enumerate(model.parameters()):
        random = torch.Generator().manual_seed(number)
        parameter.mul_(0.5 + torch.rand(parameter.shape, generator=random))


def test_one_tensor_of_each_kind_is_seen():
    model = packed()
    layer = model.bert.encoder.layer[1]
    for module, key in (
        (layer.attention.self.query, "bias"),
        (layer.attention.self.value, "scale"),
        (layer.attention.self.key, "values"),
        (layer.attention.output.LayerNorm, "weight"),
        (layer.output.LayerNorm, "bias"),
        (layer.output.dense, "values"),
    ):
        before = model(**batch()).logits
        getattr(module, key).mul_(3 if key == "scale" else -1)
        found, expected = both(model, **batch())
        assert not torch.equal(found.logits, before)
        close(found.logits, expected.logits)


def test_a_tensor_of_one_element_that_is_replaced_by_an_equal_one():
    """Which is another one all the same: what is written into it counts from then on."""
    model = packed(activation="static", prepare=lambda converted: calibrate(converted, [batch(seed=1)]))
    layer = model.bert.encoder.layer[0].output.dense
    before = model(**batch()).logits
    layer._buffers["input_scale"] = layer.input_scale.clone()
    assert torch.equal(model(**batch()).logits, before)
    layer.input_scale.mul_(8)
    found, expected = both(model, **batch())
    close(found.logits, expected.logits)
    assert not torch.equal(found.logits, before)


def test_what_was_read_is_kept_while_nothing_changes():
    model = packed()
    model(**batch())
    first = model.bert._read
    for change in (lambda: model.eval(), lambda: model.train().eval(), lambda: model.config.update({"note": 1})):
        change()
        model(**batch())
        assert model.bert._read is first


def test_a_buffer_that_becomes_a_parameter():
    model = packed()
    assert is_fused(model, **batch())
    layer = model.bert.encoder.layer[0].attention.self.query
    bias = layer.bias
    del layer.bias
    layer.bias = nn.Parameter(bias + 1, requires_grad=False)
    assert "bias" not in layer._buffers
    found, expected = both(model, **batch())
    close(found.logits, expected.logits)


def test_use_sparse_kernels_where_there_are_none():
    model = packed(pattern="4x4", sparsity=0.5)
    before = model(**batch()).logits
    assert torch.equal(use_sparse_kernels(model)(**batch()).logits, before) and is_fused(model, **batch())


def test_a_layer_on_another_device_is_not_mixed_with_these():
    model = packed()
    assert is_fused(model, **batch())
    model.bert.encoder.layer[0].attention.self.query.to("meta")
    model.bert.encoder.layer[0].attention.self.key.to("meta")
    assert "several devices" in fused_reason(model)


def test_layers_share_their_tensors_with_what_was_read():
    """Except for the stack of query, key and value."""
    model = packed()
    model(**batch())
    weights = weights_of(model)
    own = {layer.values.data_ptr() for layer in model.modules() if isinstance(layer, PackedLinear)}
    for layer in weights.layers:
        (stack,) = layer.projections
        assert stack.weight.shape == (96, 32) and stack.weight.data_ptr() not in own
        assert all(one.weight.data_ptr() in own for one in (layer.attended, layer.intermediate, layer.output))
