"""Embeddings and pooler of a fused encoder: by native code where that can be, otherwise by the model's modules."""

import pytest
import torch
from fused_models import FAMILIES, base, batch, both, close, is_fused, layered, packed, right, weights_of
from torch import nn

import sparseq
from sparseq.nn import PackedEmbedding
from sparseq_kernels import use_backend
from sparseq_kernels.cpu.native_weight import is_wanted

pytestmark = [
    pytest.mark.skipif(not is_wanted(1), reason="native code is not used here"),
    pytest.mark.usefixtures("in_one_call", "no_gradients"),
]
MASK = right(11, 3, 8, 1)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("mask", [None, MASK], ids=["all", "padded"])
def test_each_family(family, mask, native):
    model = packed(family, "Model")
    encoder = base(model)
    found, expected = both(model, **batch(), attention_mask=mask, output_hidden_states=True)
    real = torch.ones(4, 11).bool() if mask is None else mask.bool()
    close(found.hidden_states[0][real], expected.hidden_states[0][real], 2e-3 if family == "Electra" else 1e-6)
    assert native == {"embeddings": 1, "pooler": int("pooler" in encoder._modules)}
    if "pooler_output" in expected:
        close(found.pooler_output, expected.pooler_output)


@pytest.mark.parametrize("family", ["Bert", "Roberta", "Electra"])
def test_types_and_ids_of_padding(family, native):
    model = packed(family)
    ids = batch()["input_ids"]
    ids[MASK == 0] = model.config.pad_token_id
    ids[0, 4] = model.config.pad_token_id
    types = torch.arange(11).ge(5).long().expand(4, -1)
    types = types % model.config.type_vocab_size
    found, expected = both(model, input_ids=ids, attention_mask=MASK, token_type_ids=types)
    close(found.logits, expected.logits)
    assert native["embeddings"] == 1


def test_no_module_of_the_embeddings_and_the_pooler_is_called(native, monkeypatch):
    model = packed()
    expected = layered(model, **batch(), attention_mask=MASK).logits

    def fail(*args, **kwargs):
        pytest.fail("a module was called")

    for module in (*model.bert.embeddings.modules(), *model.bert.pooler.modules()):
        monkeypatch.setattr(type(module), "forward", fail)
    encoder = model.bert
    found = encoder(**batch(), attention_mask=MASK)
    assert native == {"embeddings": 1, "pooler": 1}
    monkeypatch.undo()
    close(model.classifier(found.pooler_output), expected)


def test_ids_of_32_bits(native):
    model = packed()
    expected = model(**batch()).logits
    assert torch.equal(model(input_ids=batch()["input_ids"].int()).logits, expected)
    assert native["embeddings"] == 2


def given_positions(model):
    return {"position_ids": torch.arange(11).flip(0).expand(4, -1)}


def one_row_of_types(model):
    return {"token_type_ids": torch.arange(11).ge(4).long().unsqueeze(0)}


def hooked(model):
    model.bert.embeddings.word_embeddings.register_forward_hook(lambda module, args, found: found * 2)


def hooked_norm(model):
    model.bert.embeddings.LayerNorm.register_forward_pre_hook(lambda module, args: (args[0] * 2,))


def own_forward(model):
    table = model.bert.embeddings.position_embeddings
    table.forward = lambda ids: type(table).forward(table, ids) * 2


def training(model):
    model.bert.embeddings.dropout.train()


def own_positions(model):
    model.bert.embeddings.position_ids.copy_(torch.arange(30).flip(0))


def own_types(model):
    model.bert.embeddings.token_type_ids.fill_(1)


def another_class(model):
    class Own(type(model.bert.embeddings)):
        def forward(self, *args, **kwargs):
            return super().forward(*args, **kwargs) * 2

    old = model.bert.embeddings
    model.bert.embeddings = Own(model.config).eval()
    model.bert.embeddings.load_state_dict(old.state_dict(), strict=False)


def another_dropout(model):
    model.bert.embeddings.dropout = nn.Tanh().eval()


def another_table(model):
    class Own(nn.Embedding):
        def forward(self, ids):
            return super().forward(ids) * 2

    model.bert.embeddings.token_type_embeddings = Own(2, 32).eval()


def renormed(model):
    model.bert.embeddings.token_type_embeddings = nn.Embedding(2, 32, max_norm=1.0).eval()


def another_norm(model):
    model.bert.embeddings.LayerNorm = nn.LayerNorm(32, elementwise_affine=False).eval()


def one_more_part(model):
    model.bert.embeddings.extra = nn.Linear(1, 1)
    model.bert.embeddings.position_ids.add_(0)  # for the parts to be read anew


OTHERS = (
    given_positions, one_row_of_types, hooked, hooked_norm, own_forward, training, own_positions, own_types,
    another_class, another_dropout, another_table, renormed, another_norm, one_more_part,
)  # fmt: skip


@pytest.mark.parametrize("change", OTHERS, ids=lambda change: change.__name__)
def test_what_native_code_does_not_do_is_left_to_the_modules(change, native):
    model = packed()
    assert is_fused(model, **batch()) and native["embeddings"] == 1
    more = change(model) or {}
    torch.manual_seed(0)
    found = model(**batch(), **more).logits
    assert native["embeddings"] == 1
    torch.manual_seed(0)
    close(found, layered(model, **batch(), **more).logits)
    assert native["pooler"] == 2  # The pooler is another matter.


def test_embedded_input_is_left_to_the_modules(native):
    model = packed()
    embedded = model.bert.embeddings.word_embeddings(batch()["input_ids"])
    found, expected = both(model, inputs_embeds=embedded, attention_mask=MASK)
    close(found.logits, expected.logits)
    assert native == {"embeddings": 0, "pooler": 1}


@pytest.mark.parametrize("bits", [4, 8, 16, None])
@pytest.mark.parametrize("sparsity", [0.0, 0.5])
def test_tables_of_each_form(bits, sparsity, native):
    def prepare(converted):
        for module in converted.bert.embeddings.children():
            if hasattr(module, "settings_"):
                module.settings_ = type(module.settings_)(bits)
                if sparsity:
                    module.set_mask(torch.rand(module.weight.shape) > sparsity)

    torch.manual_seed(1)
    model = packed(prepare=prepare)
    assert {one.bits for one in model.modules() if isinstance(one, PackedEmbedding)} == {bits or 32}
    found, expected = both(model, **batch(), attention_mask=MASK)
    close(found.logits, expected.logits)
    assert native["embeddings"] == int(bits != 16)


def test_tables_that_are_not_quantized(native):
    model = packed(exclude=["*embeddings*"])
    assert type(model.bert.embeddings.word_embeddings) is nn.Embedding
    found, expected = both(model, **batch(), attention_mask=MASK)
    close(found.logits, expected.logits)
    assert native["embeddings"] == 1


WRONG = {
    "no word": (lambda ids: ids + 40, {}),
    "a negative word": (lambda ids: ids - 40, {}),
    "no word where there is padding": (lambda ids: ids.masked_fill(MASK == 0, 40), {"attention_mask": MASK}),
    "no type": (lambda ids: ids, {"token_type_ids": torch.full((4, 11), 2)}),
    "no type where there is padding": (lambda ids: ids, {"token_type_ids": 2 * (1 - MASK), "attention_mask": MASK}),
    "too long": (lambda ids: ids.repeat(1, 3), {}),
    "floats": (lambda ids: ids.float(), {}),
}


@pytest.mark.parametrize("family", ["Bert", "Roberta"])
@pytest.mark.parametrize("name", WRONG)
def test_errors_are_those_of_the_modules(family, name, native):
    model = packed(family)
    change, more = WRONG[name]
    ids = change(batch()["input_ids"])
    with pytest.raises(Exception) as expected:
        layered(model, input_ids=ids, **more)
    with pytest.raises(type(expected.value)) as found:
        model(input_ids=ids, **more)
    assert str(found.value) == str(expected.value) and not native["embeddings"]


def word(model):
    model.bert.embeddings.word_embeddings.scale.mul_(3)


def word_values(model):
    model.bert.embeddings.word_embeddings.values.bitwise_xor_(1)


def word_data(model):
    table = model.bert.embeddings.word_embeddings
    table.values.data = table.values ^ 1


def norm_replaced(model):
    model.bert.embeddings.LayerNorm.weight = nn.Parameter(torch.linspace(0, 2, 32))


def table_replaced(model):
    model.bert.embeddings.position_embeddings = nn.Embedding(30, 32).eval()


def block_replaced(model):
    model.bert.embeddings = (
        packed(prepare=lambda converted: converted.bert.embeddings.word_embeddings.weight.neg_())
        ._modules["bert"]
        .embeddings
    )


def pooler_bias(model):
    model.bert.pooler.dense.bias.neg_()


def pooler_values(model):
    model.bert.pooler.dense.values.data = model.bert.pooler.dense.values.neg()


CHANGES = (word, word_values, word_data, norm_replaced, table_replaced, block_replaced, pooler_bias, pooler_values)


@pytest.mark.parametrize("embedding_bits", [8, 4])
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_changes_are_seen(change, embedding_bits, native):
    model = packed(embedding_bits=embedding_bits)
    before = model(**batch()).logits
    encoder = weights_of(model)
    change(model)
    found, expected = both(model, **batch())
    assert not torch.equal(found.logits, before)
    close(found.logits, expected.logits)
    assert native == {"embeddings": 2, "pooler": 2}
    assert weights_of(model) is encoder  # What has not changed is not read anew.


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_another_backend_is_obeyed(backend, native):
    with use_backend(backend):
        both(packed(), **batch())
    assert native == {"embeddings": 0, "pooler": 0}


def test_layers_are_packed_for_native_code_with_the_model(tmp_path):
    import transformers

    model = packed()
    assert weights_of(model).native
    sparseq.save(model, tmp_path)
    for loaded in (
        sparseq.load(tmp_path),
        transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path),
    ):
        assert weights_of(loaded).native
    assert not weights_of(packed("MPNet")).native  # They would not be used.
