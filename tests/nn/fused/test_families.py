"""Each family's encoder: the fused way gives what the model's own layers give."""

import pytest
import torch
from fused_models import FAMILIES, base, batch, both, close, layered, left, packed, right

from sparseq.nn import fused_reason

MASKS = {
    "none": None,
    "all real": right(11, 11, 11, 11),
    "right": right(11, 3, 8, 1),
    "left": left(11, 3, 8, 1),
    "few on the right": right(11, 11, 10, 11),
    "few on the left": left(11, 11, 10, 11),
    "all short": right(3, 5, 4, 5),
    "a sequence without a token": right(11, 0, 8, 1),
    "gaps": torch.tensor([[1, 0, 1, 1, 0, 0, 0, 1, 0, 0, 0]]).expand(4, -1),
}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def classifier(family):
    return packed(family)


@pytest.mark.parametrize("name", MASKS)
def test_logits(classifier, name):
    found, expected = both(classifier, **batch(), attention_mask=MASKS[name])
    close(found.logits, expected.logits)


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("kind", [torch.bool, torch.float32])
def test_hidden_states_of_real_tokens(classifier, name, kind):
    encoder, mask = base(classifier), MASKS[name]
    given = None if mask is None else mask.to(kind)
    found, expected = both(encoder, **batch(), attention_mask=given, output_hidden_states=True)
    real = torch.ones(4, 11, dtype=torch.bool) if mask is None else mask.bool()
    assert found.keys() == expected.keys() and type(found) is type(expected)
    assert len(found.hidden_states) == len(expected.hidden_states) == 3
    close(found.last_hidden_state[real], expected.last_hidden_state[real])
    for ours, theirs in zip(found.hidden_states, expected.hidden_states, strict=True):
        close(ours[real], theirs[real])
    assert torch.equal(found.last_hidden_state, found.hidden_states[-1])


@pytest.mark.parametrize("rows,length", [(1, 1), (3, 1), (1, 28)])
def test_other_shapes(classifier, rows, length):
    given = batch(rows, length)
    close(*(one.logits for one in both(classifier, **given)))
    mask = right(*[1] * rows, of=length)
    close(*(one.logits for one in both(classifier, **given, attention_mask=mask)))


def test_the_arguments_of_embeddings(family, classifier):
    given = batch()
    positions = torch.arange(11).flip(0).expand(4, -1) + 2
    found, expected = both(classifier, **given, position_ids=positions) if takes(classifier, "position_ids") else (0, 0)
    if found:
        close(found.logits, expected.logits)
        assert not torch.equal(expected.logits, layered(classifier, **given).logits)
    embedded = base(classifier).get_input_embeddings()(given["input_ids"]).detach()
    found, expected = both(classifier, inputs_embeds=embedded, attention_mask=right(11, 3, 8, 1))
    close(found.logits, expected.logits)
    if takes(classifier, "token_type_ids"):
        types = torch.arange(11).ge(5).long().expand(4, -1)
        found, expected = both(classifier, **given, token_type_ids=types)
        close(found.logits, expected.logits)
        assert not torch.equal(expected.logits, layered(classifier, **given).logits)


def takes(classifier, name):
    return name in base(classifier)._family.inputs


@pytest.mark.parametrize("options", [{}, {"output_hidden_states": True}])
def test_tuples(classifier, options):
    for model in (classifier, base(classifier)):
        found, expected = both(model, **batch(), return_dict=False, **options)
        assert type(found) is type(expected) is tuple and len(found) == len(expected)
        for ours, theirs in zip(found, expected, strict=True):
            assert type(ours) is type(theirs)
            if isinstance(ours, torch.Tensor):
                close(ours, theirs)


def test_options_of_the_configuration(family):
    model = packed(family, config={"output_hidden_states": True, "return_dict": False})
    found, expected = both(model, **batch())
    assert type(found) is type(expected) is tuple and len(found) == len(expected) == 2
    close(found[0], expected[0])
    assert len(found[1]) == len(expected[1]) == 3
    found, expected = both(base(model), **batch(), output_hidden_states=False, return_dict=True)
    assert found.keys() == expected.keys() and "hidden_states" not in found


def test_arguments_by_position(classifier):
    encoder, given, mask = base(classifier), batch()["input_ids"], right(11, 3, 8, 1)
    with torch.inference_mode():
        found = encoder(given, mask)[0]
    close(found, both(encoder, input_ids=given, attention_mask=mask)[0][0], 1e-6)


def test_a_head_for_tokens(family):
    model, mask = packed(family, "ForTokenClassification"), right(11, 3, 8, 1)
    found, expected = both(model, **batch(), attention_mask=mask)
    close(found.logits[mask.bool()], expected.logits[mask.bool()])
    labels = batch()["input_ids"].remainder(3).masked_fill(mask == 0, -100)
    found, expected = both(model, **batch(), attention_mask=mask, labels=labels)
    close(found.loss, expected.loss)


def test_eager_attention(family):
    model = packed(family)
    model.set_attn_implementation("eager")
    for mask in MASKS.values():
        found, expected = both(model, **batch(), attention_mask=mask)
        close(found.logits, expected.logits)


@pytest.mark.parametrize("activation", ["relu", "gelu_new", "gelu_pytorch_tanh", "gelu_fast", "gelu_python"])
def test_activations(family, activation):
    found, expected = both(packed(family, config={"hidden_act": activation}), **batch())
    close(found.logits, expected.logits)


def test_the_model_alone(family):
    model = packed(family, "Model")
    assert fused_reason(model, **batch()) is not None  # gradients are recorded
    found, expected = both(model, **batch())
    close(found.last_hidden_state, expected.last_hidden_state)
    if "pooler_output" in expected:
        close(found.pooler_output, expected.pooler_output)


def test_another_architecture_runs_layer_by_layer():
    import transformers

    from sparseq.nn import convert, pack

    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    config = transformers.AlbertConfig(**shape, embedding_size=16, vocab_size=40)
    model = pack(convert(transformers.AlbertForSequenceClassification(config)))
    with torch.inference_mode():
        assert model(**batch()).logits.isfinite().all()
        reason = fused_reason(model)
    assert reason is not None and reason.startswith("AlbertForSequenceClassification runs layer by layer")
