"""How a packed model gets its fused encoder, and what it keeps: its class, its state, its copies."""

import copy
import io
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from fused_models import base, batch, both, close, is_fused, layered, packed, plain, right

import sparseq
from sparseq.nn import PackedLinear, convert, fused_reason, use_fused_encoder
from sparseq.nn.fused import FusedEncoder, model
from sparseq_kernels import InputError


@pytest.fixture
def classifier():
    return packed()


@pytest.fixture(autouse=True)
def _inference():
    with torch.no_grad():
        yield


def test_the_class_is_the_models_own(classifier):
    import transformers

    encoder = classifier.bert
    assert isinstance(encoder, transformers.BertModel) and isinstance(encoder, FusedEncoder)
    assert type(encoder).__name__ == type(encoder).__qualname__ == "BertModel"
    assert type(encoder).__module__ == transformers.BertModel.__module__
    assert str(type(encoder)) == str(transformers.BertModel)
    assert type(encoder) is type(packed().bert) and type(encoder).config_class is transformers.BertConfig
    assert type(classifier) is transformers.BertForSequenceClassification


def test_a_model_that_is_not_packed_is_left_alone():
    import transformers

    converted = convert(plain())
    assert type(converted.bert) is transformers.BertModel
    assert "call sparseq.pack" in fused_reason(converted)


def test_a_subclass_of_users_is_left_alone():
    import transformers

    class Own(transformers.BertModel):
        def forward(self, *args, **kwargs):
            found = super().forward(*args, **kwargs)
            found.last_hidden_state = found.last_hidden_state * 2
            return found

    torch.manual_seed(0)
    config = plain().config
    own = sparseq.pack(convert(Own(config)))
    assert type(own) is Own and not is_fused(own, **batch())


def test_state_names_are_those_of_the_layers(classifier):
    encoder = classifier.bert
    names = list(classifier.state_dict())
    assert is_fused(classifier, **batch()) and list(classifier.state_dict()) == names
    assert not any("fused" in name for name in [*names, *dict(classifier.named_buffers()), *encoder._modules])
    plain_class = type(encoder)._plain
    encoder.__class__ = plain_class
    assert list(classifier.state_dict()) == names


COPIES = {
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
    "pickle": lambda found: pickle.loads(pickle.dumps(found)),
    "torch.save": lambda found: saved(found),
    "to": lambda found: copy.deepcopy(found).to("cpu"),
    "there and back": lambda found: copy.deepcopy(found).half().float(),
}


def saved(found):
    file = io.BytesIO()
    torch.save(found, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("name", COPIES)
@pytest.mark.parametrize("alone", [False, True])
def test_copies(classifier, name, alone):
    found = classifier.bert if alone else classifier
    expected = found(**batch())[0]
    made = COPIES[name](found)
    assert type(made) is type(found) and type(base(made)) is type(classifier.bert)
    assert is_fused(made, **batch())
    close(made(**batch())[0], expected, 2e-2 if name == "there and back" else 1e-6)


def test_a_copy_is_of_its_own_tensors(classifier):
    made = copy.deepcopy(classifier)
    expected = classifier(**batch()).logits
    for layer in made.modules():
        if isinstance(layer, PackedLinear):
            layer.scale.mul_(2)
    assert not torch.equal(made(**batch()).logits, expected) and torch.equal(classifier(**batch()).logits, expected)
    close(made(**batch()).logits, layered(made, **batch()).logits)


@pytest.mark.parametrize("alone", [False, True])
def test_saved_and_loaded(classifier, alone, tmp_path):
    import transformers

    found = classifier.bert if alone else classifier
    expected = found(**batch())[0]
    sparseq.save(found, tmp_path)
    loaded = [sparseq.load(tmp_path), type(found).from_pretrained(tmp_path)]
    if not alone:
        loaded.append(transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path))
    for one in loaded:
        assert isinstance(base(one), transformers.BertModel) and is_fused(one, **batch())
        assert torch.equal(one(**batch())[0], expected)
        assert list(one.state_dict()) == list(found.state_dict())


def test_a_pipeline_of_transformers(classifier):
    """Feature extraction asks for the parameters of forward."""
    import inspect

    names = list(inspect.signature(classifier.bert.forward).parameters)
    assert names[:2] == ["input_ids", "attention_mask"]
    assert names == list(inspect.signature(type(classifier.bert)._plain.forward).parameters)[1:]


def test_use_fused_encoder(classifier):
    assert use_fused_encoder(classifier, False) is classifier and not is_fused(classifier, **batch())
    assert "turned off" in fused_reason(classifier)
    assert not is_fused(copy.deepcopy(classifier), **batch())
    for on in (True, None):
        assert is_fused(use_fused_encoder(classifier, on), **batch()) and fused_reason(classifier) is None


def test_a_model_that_cannot_is_refused_by_name_of_the_reason():
    other = packed(bits=16)
    with pytest.raises(InputError, match=r"no fused encoder: layer 0: query has 16 bits"):
        use_fused_encoder(other)
    assert use_fused_encoder(other, None) is other and "16 bits" in fused_reason(other)
    with pytest.raises(InputError, match=r"no packed linear layers"):
        use_fused_encoder(plain())
    # What may be otherwise in the next call does not count.
    assert use_fused_encoder(packed().train()).bert.fused_encoder is True


def test_threads_at_once(classifier):
    calls = [batch(rows, length) for rows in (1, 4) for length in (2, 7, 11)] * 4
    expected = [classifier(**call).logits for call in calls]
    fresh = copy.deepcopy(classifier)

    def run(call):
        with torch.inference_mode():
            return fresh(**call).logits

    with ThreadPoolExecutor(4) as pool:
        for found, right_one in zip(pool.map(run, calls), expected, strict=True):
            assert torch.equal(found, right_one)


def test_compiled_it_is_the_layers():
    found = packed()
    torch._dynamo.reset()
    if torch.__version__ < "2.7":
        try:
            torch.compile(plain(), backend="eager")(**batch())
        except TypeError as error:
            pytest.skip(f"torch {torch.__version__} does not compile transformers' own model: {error}")
    compiled = torch.compile(found, backend="eager")
    expected = layered(found, **batch())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "_run", lambda *_: pytest.fail("the fused way was asked for"))
        close(compiled(**batch()).logits, expected.logits)


def test_what_is_made_is_made_once(classifier):
    call = batch()
    classifier(**call)
    first = classifier.bert._read
    classifier(**call)
    with torch.inference_mode():
        classifier(**call, attention_mask=right(11, 3, 8, 1))
    assert classifier.bert._read is first and first is not None


def test_one_encoder_beside_another(classifier):
    class Pair(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = packed("Bert", "Model"), packed("DistilBert", "Model")

        def forward(self, **call):
            return self.a(**call)[0] + self.b(**call)[0]

    pair = Pair()
    assert fused_reason(pair) is None
    expected = layered(pair, **batch())
    close(pair(**batch()), expected)
    assert fused_reason(use_fused_encoder(pair, False)) is not None


def test_the_kernels_that_are_called(classifier):
    """Three products a layer less than by its modules."""
    from torch.utils.flop_counter import FlopCounterMode

    found, expected = both(classifier, **batch())
    close(found.logits, expected.logits)
    with FlopCounterMode(display=False):  # A mode of torch sees the layers.
        assert not is_fused(classifier, **batch())
