"""Weights that others change: vocabularies resized, adapters merged."""

import copy

import pytest
import torch
from torch import nn

from sparseq import convert, pack, save
from sparseq.nn import QuantEmbedding, QuantSparseLinear, refresh

transformers = pytest.importorskip("transformers", reason="the model tests need sparseq[train]")
IDS = torch.randint(3, 40, (2, 7), generator=torch.Generator().manual_seed(0))
SETTINGS = [
    {"scale": "lsq"},
    {"sparsity": 0.5, "prune_embeddings": True},
    {"scale": "lsq", "sparsity": 0.5, "pattern": "2:4", "prune_embeddings": True},
    {"bits": None, "sparsity": 0.5, "pattern": "4x4", "prune_embeddings": True},
]


def masked_lm(tied=True, **settings):
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        tie_word_embeddings=tied, type_vocab_size=4, max_position_embeddings=32,
    )  # fmt: skip
    return convert(transformers.BertForMaskedLM(config).eval(), **settings)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("size", [43, 50, 33, 40])
def test_a_vocabulary_is_resized(settings, size):
    model = masked_lm(**settings)
    before = model(IDS.clamp_max(32)).logits.detach()  # a graph that is alive would hold to the old size
    old = copy.deepcopy(model.bert.embeddings.word_embeddings)
    model.resize_token_embeddings(size, mean_resizing=False)
    table, head = model.bert.embeddings.word_embeddings, model.cls.predictions.decoder
    assert type(table) is QuantEmbedding and type(head) is QuantSparseLinear and head.weight is table.weight
    assert table.num_embeddings == head.out_features == len(table.weight) == len(head.bias) == size
    after = model(IDS.clamp_max(32)).logits
    rows = min(size, 40)
    torch.testing.assert_close(after[..., :rows], before[..., :rows])
    if old.mask is not None:
        assert head.mask is table.mask and table.mask.shape == table.weight.shape
        assert torch.equal(table.mask[:rows], old.mask[:rows]) and table.mask[rows:].all()
    if head.step_size is not None:
        assert head.step_size.shape == (size,) and isinstance(head.step_size, nn.Parameter)
    model(IDS.clamp_max(size - 1), labels=IDS.clamp_max(size - 1)).loss.backward()
    assert all(p.grad is None or p.grad.shape == p.shape for p in model.parameters())
    torch.testing.assert_close(pack(model)(IDS.clamp_max(32)).logits, after, rtol=1e-4, atol=1e-5)
    again = masked_lm(**settings)
    again.resize_token_embeddings(size, mean_resizing=False)
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(IDS.clamp_max(32)).logits, after)


def test_a_resized_model_is_saved(tmp_path):
    model = masked_lm(sparsity=0.5, prune_embeddings=True)
    model.resize_token_embeddings(47)
    save(model, tmp_path)
    from sparseq import load

    assert torch.equal(load(tmp_path)(IDS).logits, model(IDS).logits)


def test_an_untied_head_is_right_after_resizing_and_can_be_converted_again():
    model = masked_lm(tied=False, scale="lsq")
    before = model(IDS).logits
    model.resize_token_embeddings(45)
    head = model.cls.predictions.decoder
    assert type(head) is nn.Linear and type(model.bert.embeddings.word_embeddings) is QuantEmbedding
    assert (model(IDS).logits[..., :40] - before).abs().max() < 0.02
    convert(model, scale="lsq")
    torch.testing.assert_close(model(IDS).logits[..., :40], before)


@pytest.mark.parametrize("scale", ["max", "lsq"])
def test_merging_an_adapter_and_refreshing(scale):
    """W += B A, as merging LoRA does, with an update as large as the weights."""
    torch.manual_seed(0)
    model = convert(nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 8)), scale=scale)
    x, updates = torch.randn(32, 64), {}
    with torch.no_grad():
        for layer in (model[0], model[2]):
            a, b = torch.randn(4, layer.in_features) / 8, torch.randn(layer.out_features, 4) / 8
            updates[layer] = b @ a
    handles = [
        layer.register_forward_hook(lambda m, args, y, u=update: y + args[0] @ u.t())
        for layer, update in updates.items()
    ]
    expected = model(x)
    for handle, (layer, update) in zip(handles, updates.items(), strict=True):
        handle.remove()
        with torch.no_grad():
            layer.weight += update
    scatter = expected.std()
    stale = ((model(x) - expected).abs().max() / scatter).item()
    moved = ((refresh(model)(x) - expected).abs().max() / scatter).item()
    assert moved < 0.1
    assert stale > 3 * moved if scale == "lsq" else stale == moved


def test_refreshing_applies_masks_and_scales():
    model = convert(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)), sparsity=0.5, scale="lsq")
    expected = model[0].mask
    with torch.no_grad():
        for layer in model:
            layer.weight.add_(1)
    assert refresh(model) is model
    for layer in model:
        assert not layer.weight[~layer.mask].any()
        torch.testing.assert_close(layer.step_size.detach(), layer.weight.detach().abs().amax(1) / 127)
    assert model[0].mask is expected


def test_an_adapter_is_whole_where_the_mask_was_dropped_first():
    torch.manual_seed(0)
    layer = QuantSparseLinear(16, 16, bits=None)
    layer.set_mask(torch.rand(16, 16) > 0.5)
    x, update = torch.randn(4, 16), torch.randn(16, 16)
    expected = layer(x) + x @ update.t()
    layer.set_mask(None)
    with torch.no_grad():
        layer.weight += update
    torch.testing.assert_close(refresh(layer)(x), expected)
