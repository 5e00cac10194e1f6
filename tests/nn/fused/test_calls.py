"""Calls and models that do not run fused: each takes the model's own way, gives the same, and is told why."""

import pytest
import torch
from fused_models import base, batch, close, is_fused, layered, linears, packed, plain
from torch import nn

from sparseq.nn import convert, fused_reason, pack

IDS = batch()["input_ids"]
FOUR = torch.zeros(4, 1, 1, 11)
CALLS = {
    "attentions": ({"output_attentions": True}, "output_attentions"),
    "a mask of four dimensions": ({"attention_mask": FOUR}, "attention_mask is not of the shape"),
    "a mask of another length": ({"attention_mask": torch.ones(4, 9)}, "attention_mask is not of the shape"),
    "single hidden states": ({"output_hidden_states": [0, -1]}, "single hidden states"),
    "causal": ({"is_causal": True}, "an argument is_causal"),
    "states of an encoder": ({"encoder_hidden_states": torch.ones(4, 3, 32)}, "an argument encoder_hidden_states"),
    "something unknown": ({"something": 1}, "an argument something"),
}


@pytest.fixture(scope="module")
def encoder():
    return packed("Bert", "Model")


@pytest.mark.parametrize("name", CALLS)
def test_calls(encoder, name):
    more, reason = CALLS[name]
    if name == "attentions":
        encoder.set_attn_implementation("eager")
    with torch.inference_mode():
        assert reason in fused_reason(encoder, **batch(), **more)
        assert not is_fused(encoder, **batch(), **more)
        found, expected = encoder(**batch(), **more), layered(encoder, **batch(), **more)
    encoder.set_attn_implementation("sdpa")
    assert found.keys() == expected.keys() and torch.equal(found[0], expected[0])
    with torch.inference_mode():  # Recorders, which such a call leaves in the layers, do not count.
        assert is_fused(encoder, **batch())


def test_arguments_that_are_none_do_not_count(encoder):
    nothing = {"encoder_hidden_states": None, "past_key_values": None, "use_cache": True, "output_attentions": None}
    with torch.inference_mode():
        assert is_fused(encoder, **batch(), **nothing) and fused_reason(encoder, **batch(), **nothing) is None


WRONG = {
    "nothing": ((), {}),
    "ids and embeddings": ((IDS,), {"inputs_embeds": torch.ones(4, 11, 32)}),
    "twice": ((IDS,), {"input_ids": IDS}),
    "too many": ((IDS,) * 30, {}),
    "three dimensions": ((IDS[None],), {}),
    "a word of another vocabulary": ((IDS + 40,), {}),
    "a sequence that is too long": ((batch(1, 31)["input_ids"],), {}),
    "a list": (([[1, 2]],), {}),
}


@pytest.mark.parametrize("name", WRONG)
def test_errors_are_those_of_the_model(encoder, name):
    args, kwargs = WRONG[name]
    with torch.inference_mode():
        with pytest.raises(Exception) as found:
            encoder(*args, **kwargs)
        with pytest.raises(type(found.value)):
            type(encoder)._plain.forward(encoder, *args, **kwargs)


def test_gradients():
    model = packed()
    found = model(**batch())
    assert found.logits.requires_grad and "inference_mode" in fused_reason(model)
    found.logits.sum().backward()
    assert model.bert.encoder.layer[0].output.LayerNorm.weight.grad.abs().sum() > 0
    model.requires_grad_(False)
    assert fused_reason(model) is None and is_fused(model, **batch())
    embedded = torch.randn(4, 11, 32, requires_grad=True)
    assert "inference_mode" in fused_reason(model, inputs_embeds=embedded)
    assert torch.autograd.grad(model(inputs_embeds=embedded).logits.sum(), embedded)[0].abs().sum() > 0


def in_training(model):
    model.train()


def part_in_training(model):
    model.bert.encoder.layer[1].attention.output.dropout.train()


def hooked(model):
    model.bert.encoder.layer[0].attention.register_forward_hook(lambda *_: None)


def hooked_before(model):
    model.bert.encoder.layer[1].output.dense.register_forward_pre_hook(lambda *_: None)


def own_forward(model):
    layer = model.bert.encoder.layer[0].intermediate
    layer.forward = type(layer).forward.__get__(layer)


def another_layer(model):
    class Adapted(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return self.inner(x) + 1

    attention = model.bert.encoder.layer[0].attention.self
    attention.query = Adapted(attention.query)


def another_norm(model):
    class Norm(nn.LayerNorm):
        def forward(self, x):
            return super().forward(x) * 2

    old = model.bert.encoder.layer[0].output.LayerNorm
    new = Norm(32).eval()
    new.load_state_dict(old.state_dict())
    model.bert.encoder.layer[0].output.LayerNorm = new


def another_block(model):
    old = model.bert.encoder.layer[0].output

    class Output(type(old)):
        def forward(self, *args):
            return super().forward(*args) + 1

    new = Output(model.config).eval()
    new.dense, new.LayerNorm = old.dense, old.LayerNorm
    model.bert.encoder.layer[0].output = new


def another_activation(model):
    model.bert.encoder.layer[1].intermediate.intermediate_act_fn = nn.Tanh()


def another_attention(model):
    from transformers import AttentionInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    AttentionInterface.register("own", sdpa_attention_forward)
    AttentionMaskInterface.register("own", sdpa_mask)
    model.set_attn_implementation("own")


def decoder(model):
    model.config.is_causal = True


def double(model):
    model.double()


def in_inference_mode(model):
    norm = model.bert.encoder.layer[0].output.LayerNorm
    with torch.inference_mode():
        norm.weight = torch.nn.Parameter(norm.weight.clone())


MODELS = {
    in_training: "training mode",
    part_in_training: "training mode",
    hooked: "forward hook",
    hooked_before: "forward hook",
    own_forward: "forward of its own",
    another_layer: "its encoder has a block of the class Adapted",
    another_norm: "the output's LayerNorm is of the class Norm",
    another_block: "has a block of the class Output, which is not transformers' own",
    another_activation: "activation Tanh",
    another_attention: "attention is 'own'",
    decoder: "decoder",
    double: "float64",
    in_inference_mode: "in inference mode",
}


@pytest.mark.parametrize("change", MODELS, ids=lambda change: change.__name__)
def test_models(change):
    model = packed()
    with torch.inference_mode():
        assert is_fused(model, **batch())
    change(model)
    with torch.inference_mode():
        assert MODELS[change] in fused_reason(model)
        assert not is_fused(model, **batch())
        torch.manual_seed(5)
        found = model(**batch()).logits
        torch.manual_seed(5)
        assert torch.equal(found, layered(model, **batch()).logits)


def test_a_hook_that_is_removed_again():
    model = packed()
    handle = model.bert.encoder.layer[0].register_forward_hook(lambda *_: None)
    with torch.inference_mode():
        assert not is_fused(model, **batch())
        handle.remove()
        assert is_fused(model, **batch())


def test_hooks_of_all_modules_see_each():
    model, seen = packed(), []
    handle = nn.modules.module.register_module_forward_hook(lambda module, *_: seen.append(type(module).__name__))
    with torch.inference_mode():
        assert "for all modules" in fused_reason(model) and not is_fused(model, **batch())
        assert "BertSelfAttention" in seen
        handle.remove()
        assert is_fused(model, **batch())


def test_hooks_outside_the_encoder_are_called():
    model, seen = packed(), []
    for module in (model.bert, model.bert.embeddings, model.bert.pooler):
        module.register_forward_hook(lambda module, *_: seen.append(type(module).__name__))
    with torch.inference_mode():
        assert is_fused(model, **batch())
    assert seen == ["BertEmbeddings", "BertPooler", "BertModel"]


SETTINGS = [
    ({"bits": 16}, "16 bits"),
    ({"bits": None}, "32 bits"),
    ({"exclude": ["*.1.output.dense"]}, "layer 1: the output is of the class Linear"),
]


@pytest.mark.parametrize("settings,reason", SETTINGS)
def test_settings(settings, reason):
    model = packed(**settings)
    with torch.inference_mode():
        assert reason in fused_reason(model) and not is_fused(model, **batch())


def test_a_decoder():
    import transformers

    torch.manual_seed(0)
    config = plain().config
    config.is_decoder = True
    model = pack(convert(transformers.BertLMHeadModel(config)))
    with torch.inference_mode():
        assert "decoder" in fused_reason(model) and not is_fused(model, **batch())
        assert model(**batch(), use_cache=True).past_key_values is not None


def test_autocast_and_modes_of_torch():
    from torch.utils.flop_counter import FlopCounterMode

    model = packed()
    with torch.inference_mode():
        with torch.autocast("cpu", torch.bfloat16):
            assert "autocast" in fused_reason(model) and not is_fused(model, **batch())
        with FlopCounterMode(display=False):
            assert "mode of torch" in fused_reason(model) and not is_fused(model, **batch())


def test_functional_call_is_of_the_state_that_is_given():
    model, other = packed(), packed()
    with torch.no_grad():
        for layer in linears(other):
            layer.bias.mul_(0.5)
    expected = layered(other, **batch()).logits
    with torch.inference_mode():
        before = model(**batch()).logits
        found = torch.func.functional_call(model, dict(other.state_dict()), (), batch()).logits
        close(found, expected)
        assert not torch.equal(before, found) and torch.equal(model(**batch()).logits, before)


def test_the_layers_by_themselves():
    """They are modules as before."""
    encoder = base(packed())
    with torch.inference_mode():
        hidden = encoder.embeddings(**batch())
        expected = encoder(**batch(), output_hidden_states=True).hidden_states
        for number in range(2):
            hidden = encoder.encoder.layer[number](hidden)
            close(hidden, expected[number + 1])
