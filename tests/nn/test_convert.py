import copy

import pytest
import torch
from torch import nn

import sparseq
from sparseq import InputError, calibrate, convert, pack
from sparseq.nn import (
    PackedLinear,
    QuantEmbedding,
    QuantSparseLinear,
    check_finite,
    find_nonfinite,
    named_layers,
    prunable,
)

transformers = pytest.importorskip("transformers", reason="the model tests need sparseq[train]")


def bert(**kwargs):
    return transformers.BertForSequenceClassification(
        transformers.BertConfig(
            vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, **kwargs
        )
    ).eval()


def distilbert():
    config = transformers.DistilBertConfig(vocab_size=50, dim=32, n_layers=2, n_heads=4, hidden_dim=64)
    return transformers.DistilBertForSequenceClassification(config).eval()


def roberta():
    config = transformers.RobertaConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64
    )
    return transformers.RobertaForSequenceClassification(config).eval()


def minilm():
    """MiniLM-L6's configuration, its depth and vocabulary cut."""
    return transformers.BertForSequenceClassification(
        transformers.BertConfig(
            vocab_size=50, hidden_size=384, num_hidden_layers=1, num_attention_heads=12, intermediate_size=1536
        )
    ).eval()


IDS = torch.randint(3, 50, (2, 9), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("make", [bert, distilbert, roberta, minilm])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"bits": 4, "sparsity": 0.5, "pattern": "2:4"},
        {"sparsity": 0.6, "pattern": "4x4"},
        {"bits": None, "sparsity": 0.4},
        {"bits": 16, "activation": "static", "scale": "lsq"},
    ],
)
def test_any_encoder_converts_trains_and_packs(make, settings):
    torch.manual_seed(0)
    model = make()
    before = model(IDS).logits
    convert(model, **settings)
    assert not [m for m in model.modules() if type(m) in (nn.Linear, nn.Embedding)]
    if "activation" in settings:
        calibrate(model, [{"input_ids": IDS}])
    after = model(IDS).logits
    if settings == {}:
        assert (after - before).abs().max() < 0.02
    packed = pack(model)
    torch.testing.assert_close(packed(IDS).logits, after, rtol=1e-5, atol=1e-5)
    assert not packed.training and all(not isinstance(m, QuantSparseLinear) for m in packed.modules())
    model.train()(IDS, labels=torch.tensor([0, 1])).loss.backward()
    assert all(p.grad is not None for n, p in model.named_parameters() if "layer" in n and "input_scale" not in n)


def test_what_is_pruned_is_the_encoder():
    model = convert(bert(), sparsity=0.5, pattern="4x4")
    pruned = {n for n, m in named_layers(model) if m.mask is not None}
    assert pruned == set(prunable(model)) and len(pruned) == 12
    assert all(n.startswith("bert.encoder.layer.") for n in pruned)
    kept = sum(int(m.mask.sum()) for m in prunable(model).values())
    total = sum(m.weight.numel() for m in prunable(model).values())
    assert kept == total // 2
    with_tables = convert(bert(), sparsity=0.5, prune_embeddings=True, on_mismatch="skip")
    assert with_tables.bert.embeddings.word_embeddings.mask is not None


def test_per_layer_scope_prunes_every_layer_alike():
    model = convert(bert(), sparsity=0.75, scope="layer")
    assert {m.mask.float().mean().item() for m in prunable(model).values()} == {0.25}


def test_include_and_exclude_by_type_and_name():
    model = convert(bert(), include=(nn.Linear,), exclude=("*classifier*", "*.pooler.*"))
    names = {n for n, _ in named_layers(model)}
    assert type(model.classifier) is nn.Linear and type(model.bert.pooler.dense) is nn.Linear
    assert all("encoder" in n for n in names) and type(model.bert.embeddings.word_embeddings) is nn.Embedding
    only = convert(bert(), include=("*.query",))
    assert {n.rsplit(".", 1)[-1] for n, _ in named_layers(only)} == {"query"}
    with pytest.raises(
        InputError, match=r"no nn\.Linear or nn\.Embedding of the model matches include=\['nothing\*'\]"
    ):
        convert(bert(), include=("nothing*",))


def test_ties_and_shared_modules_survive():
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=64
    )
    model = convert(transformers.BertForMaskedLM(config).eval())
    table, head = model.bert.embeddings.word_embeddings, model.cls.predictions.decoder
    assert table.weight is head.weight
    packed = pack(model)
    table, head = packed.bert.embeddings.word_embeddings, packed.cls.predictions.decoder
    assert table.values.data_ptr() == head.values.data_ptr()
    torch.testing.assert_close(packed(IDS).logits, model(IDS).logits)
    shared = nn.Linear(4, 4)
    twice = convert(nn.ModuleDict({"a": shared, "b": shared}))
    assert twice["a"] is twice["b"] and isinstance(twice["b"], QuantSparseLinear)


def test_a_single_layer_is_a_model_too():
    assert isinstance(convert(nn.Linear(8, 4), sparsity=0.5), QuantSparseLinear)
    assert isinstance(convert(nn.Embedding(8, 4)), QuantEmbedding)
    assert isinstance(pack(convert(nn.Linear(8, 4))), PackedLinear)


def test_attention_that_reads_weights_itself_is_left_alone():
    encoder = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    model = nn.ModuleDict({"encoder": encoder, "head": nn.Linear(16, 2)})
    convert(model)
    assert {n for n, _ in named_layers(model)} == {"head"}


def test_packing_shares_nothing():
    model = convert(bert(), sparsity=0.5)
    packed = pack(model)
    before = packed(IDS).logits
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(7)
    assert torch.equal(packed(IDS).logits, before)


def test_calibrate_takes_the_largest_value_and_forgets_the_old_one():
    model = convert(nn.Sequential(nn.Linear(4, 4)), activation="static")
    for top in (3.0, 2.0):
        calibrate(model, [{"input": torch.full((1, 4), v)} for v in (1.0, top)])
        assert model[0].input_scale.item() == pytest.approx(top / 127)
    with pytest.raises(InputError, match=r"layer '0' cannot be packed: .* no scale yet"):
        pack(convert(nn.Sequential(nn.Linear(4, 4)), activation="static"))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_bad_number_is_traced_to_its_layer(value):
    model = bert()
    with torch.no_grad():
        model.bert.encoder.layer[1].output.dense.weight[0, 0] = value
    word = "NaN" if value != value else "Inf"
    for act in (check_finite, convert):
        with pytest.raises(InputError, match=rf"'bert\.encoder\.layer\.1\.output\.dense\.weight' holds {word}"):
            act(model)
    assert find_nonfinite(model, {"input_ids": IDS}).startswith("'bert.encoder.layer.1.output.dense'")
    assert find_nonfinite(bert(), {"input_ids": IDS}) is None
    good = convert(bert())
    with torch.no_grad():
        good.bert.encoder.layer[0].output.dense.weight[0, 0] = value
    with pytest.raises(InputError, match=r"layer\.0\.output\.dense"):
        pack(good)


def test_a_pattern_that_does_not_divide_names_the_layer_and_the_way_out():
    model = nn.Sequential(nn.Linear(8, 6), nn.Linear(6, 8))
    with pytest.raises(InputError, match=r"pattern 4x4 does not divide layer '0', .* skip"):
        convert(copy.deepcopy(model), sparsity=0.5, pattern="4x4")
    skipped = convert(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 6)), sparsity=0.5, pattern="4x4", on_mismatch="skip")
    assert skipped[0].mask is not None and skipped[1].mask is None


@pytest.mark.parametrize(
    "settings,sentence",
    [
        ({"bits": 7}, "bits is 7"),
        ({"sparsity": 1.0}, "below 1"),
        ({"sparsity": 0.6, "pattern": "2:4"}, "at most 0.5"),
        ({"pattern": "4by4"}, "unknown sparsity pattern"),
        ({"scope": "all"}, "scope is 'all'"),
        ({"on_mismatch": "ignore"}, "on_mismatch is 'ignore'"),
    ],
)
def test_bad_settings_leave_the_model_alone(settings, sentence):
    model = bert()
    with pytest.raises(InputError, match=sentence):
        convert(model, **settings)
    assert not list(named_layers(model))


def test_a_refusal_leaves_the_model_as_it_was_and_its_remedy_works():
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 6))
    with pytest.raises(InputError, match="--on-mismatch skip"):
        convert(model, sparsity=0.5, pattern="4x4")
    assert not list(named_layers(model))
    convert(model, sparsity=0.5, pattern="4x4", on_mismatch="skip")
    with pytest.raises(InputError, match="converted already"):
        convert(model)


@pytest.mark.parametrize(
    "make,settings,sentence",
    [
        (lambda: nn.TransformerEncoderLayer(16, 2, 32), {}, "no nn.Linear or nn.Embedding"),
        (lambda: bert(), {"include": (nn.Embedding,), "sparsity": 0.5}, "nothing to prune"),
        (lambda: nn.Linear(6, 6), {"sparsity": 0.5, "pattern": "4x4", "on_mismatch": "skip"}, "nothing to prune"),
    ],
)
def test_nothing_is_done_silently(make, settings, sentence):
    with pytest.raises(InputError, match=sentence):
        convert(make(), **settings)


def test_calibrate_reads_inputs_given_by_name():
    class ByName(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            return self.layer(input=x)

    model = convert(ByName(), activation="static")
    calibrate(model, [{"x": torch.full((1, 4), 3.0)}])
    assert model.layer.input_scale.item() == pytest.approx(3 / 127)


@pytest.mark.parametrize("bits", [8, 4, 16, None])
@pytest.mark.parametrize("embedding_bits", [4, 8, 16])
def test_embeddings_have_bits_of_their_own(bits, embedding_bits, tmp_path):
    model = convert(bert(), bits=bits, embedding_bits=embedding_bits)
    for _, layer in named_layers(model):
        assert layer.bits == (embedding_bits if isinstance(layer, QuantEmbedding) else bits)
    packed = pack(model)
    with torch.no_grad():
        expected = packed(IDS).logits
    torch.testing.assert_close(model(IDS).logits, expected, rtol=1e-3, atol=1e-3)
    sparseq.save(packed, tmp_path)
    with torch.no_grad():
        assert torch.equal(sparseq.load(tmp_path)(IDS).logits, expected)
    stored = {layer.name: layer.stored_bytes for layer in sparseq.size_report(packed).layers}
    assert stored["bert.embeddings.word_embeddings"] == 50 * 32 * embedding_bits // 8 + 50 * 4


def test_embeddings_without_bits_of_their_own_are_as_the_rest():
    for settings in ({}, {"embedding_bits": None}, {"embedding_bits": 4}):
        assert {layer.bits for _, layer in named_layers(convert(bert(), bits=4, **settings))} == {4}


def test_one_weight_has_one_width():
    def tied():
        model = nn.ModuleDict({"table": nn.Embedding(8, 4), "head": nn.Linear(4, 8), "other": nn.Linear(4, 4)})
        model["head"].weight = model["table"].weight
        return model

    model = tied()
    with pytest.raises(InputError, match=r"'head' and embedding 'table' share one weight, which cannot have 8 bits in"):
        convert(model, embedding_bits=4)
    assert type(model["other"]) is nn.Linear  # nothing was replaced
    convert(tied(), embedding_bits=8)
    left = convert(tied(), embedding_bits=4, exclude="head")
    assert left["table"].bits == 4 and type(left["head"]) is nn.Linear


@pytest.mark.parametrize("bits", [5, 32, "8", 4.0, True])
def test_other_bits_of_embeddings_are_refused(bits):
    with pytest.raises(InputError, match="bits is"):
        convert(bert(), embedding_bits=bits)
