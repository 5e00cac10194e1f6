"""Which layers are pruned: those of repeated blocks, found by structure, in whatever model and however wrapped."""

import warnings

import pytest
import torch
from torch import nn

from sparseq import InputError, convert
from sparseq.nn import named_layers, prunable
from sparseq.nn.blocks import repeated_blocks
from sparseq.prune import MagnitudePruner, SparsitySchedule, select_masks

transformers = pytest.importorskip("transformers", reason="the model tests need sparseq[train]")
SMALL = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
TEXT = {**SMALL, "vocab_size": 40, "num_hidden_layers": 2}
SWIN = {"image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [2, 2], "num_heads": [2, 2], "window_size": 4}
BART = {
    "vocab_size": 40, "d_model": 16, "encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32,
}  # fmt: skip


def make(family, head="ForSequenceClassification", **settings):
    config = getattr(transformers, f"{family}Config")(**settings)
    return getattr(transformers, family + head)(config)


def bert(**changes):
    return make("Bert", "Model", **{**TEXT, **changes})


def t5(layers):
    settings = {"vocab_size": 40, "d_model": 16, "d_ff": 32, "num_layers": layers, "num_heads": 2, "d_kv": 8}
    return make("T5", "ForConditionalGeneration", **settings)


def gpt2(head="LMHeadModel"):
    settings = {"vocab_size": 40, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32, "pad_token_id": 0}
    return make("GPT2", head, **settings, bos_token_id=0, eos_token_id=0)


DISTIL = {"vocab_size": 40, "dim": 16, "n_heads": 2, "hidden_dim": 32}
# name -> (model, the beginnings of the names of all that is pruned)
MODELS = {
    "bert": (lambda: make("Bert", **TEXT), ["bert.encoder.layer."]),
    "bert, 1 layer": (lambda: make("Bert", **{**TEXT, "num_hidden_layers": 1}), ["bert.encoder.layer."]),
    "bert and a head": (lambda: nn.Sequential(bert(), nn.Linear(16, 2)), ["0.encoder.layer."]),
    "bert, 1 layer, and a head": (
        lambda: nn.Sequential(bert(num_hidden_layers=1), nn.Linear(16, 2)),
        ["0.encoder.layer."],
    ),
    "two berts": (lambda: nn.ModuleList([bert(), bert()]), ["0.encoder.layer.", "1.encoder.layer."]),
    "bert for masked words": (lambda: make("Bert", "ForMaskedLM", **TEXT), ["bert.encoder.layer."]),
    "roberta": (lambda: make("Roberta", **TEXT), ["roberta.encoder.layer."]),
    "distilbert": (lambda: make("DistilBert", **DISTIL, n_layers=2), ["distilbert.transformer.layer."]),
    "distilbert, 1 layer": (lambda: make("DistilBert", **DISTIL, n_layers=1), ["distilbert.transformer.layer."]),
    "albert": (lambda: make("Albert", **TEXT, embedding_size=8), ["albert.encoder.albert_layer_groups."]),
    "albert, 2 groups": (
        lambda: make("Albert", **TEXT, embedding_size=8, num_hidden_groups=2, inner_group_num=2),
        ["albert.encoder.albert_layer_groups."],
    ),
    "electra": (lambda: make("Electra", **TEXT, embedding_size=8), ["electra.encoder.layer."]),
    "mpnet": (lambda: make("MPNet", **TEXT), ["mpnet.encoder.layer."]),
    "deberta": (lambda: make("DebertaV2", **TEXT), ["deberta.encoder.layer."]),
    "t5": (lambda: t5(2), ["encoder.block.", "decoder.block."]),
    "t5, 1 layer": (lambda: t5(1), ["encoder.block.", "decoder.block."]),
    "bart": (lambda: make("Bart", **BART), ["model.encoder.layers.", "model.decoder.layers."]),
    "vit": (
        lambda: make("ViT", "ForImageClassification", **SMALL, num_hidden_layers=2, image_size=16, patch_size=8),
        ["vit.layers.", "vit.encoder.layer."],
    ),
    "swin": (lambda: make("Swin", "ForImageClassification", **SWIN), ["swin.encoder.layers."]),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.filterwarnings("ignore:convert leaves")
def test_the_linear_layers_of_blocks_are_pruned_and_nothing_else(name):
    build, beginnings = MODELS[name]
    model = convert(build(), sparsity=0.5)
    masked = {n for n, layer in named_layers(model) if layer.mask is not None}
    inside = {n for n, m in model.named_modules() if isinstance(m, nn.Linear) and n.startswith(tuple(beginnings))}
    assert masked == inside == set(prunable(model)) and masked
    kept = sum(int(layer.mask.sum()) for layer in prunable(model).values())
    assert kept == sum(layer.weight.numel() for layer in prunable(model).values()) // 2


def test_gpt2_has_nothing_to_prune_and_says_what_its_layers_are():
    with pytest.warns(UserWarning, match=r"leaves 8 Conv1D \(the first is 'transformer\.h\.0\.attn\.c_attn'\)"):
        model = convert(gpt2())
    assert prunable(model) == {}
    for head in ("LMHeadModel", "ForSequenceClassification"):
        plain = gpt2(head)
        with pytest.raises(InputError, match=r"nothing to prune: .*'transformer\.h\.0'.* \(8 Conv1D .*\)"):
            convert(plain, sparsity=0.5)
        assert not list(named_layers(plain))


def test_a_tied_table_is_pruned_only_if_asked_for():
    def tied():
        model = nn.ModuleDict({"table": nn.Embedding(16, 8), "middle": nn.Linear(8, 8), "head": nn.Linear(8, 16)})
        model["head"].weight = model["table"].weight
        return model

    model = convert(tied(), sparsity=0.5)
    assert list(prunable(model)) == ["middle"] and model["head"].mask is None is model["table"].mask
    model = convert(tied(), sparsity=0.5, prune_embeddings=True)
    assert list(prunable(model, embeddings=True)) == ["middle", "table"]
    assert model["head"].mask is model["table"].mask is not None
    with pytest.raises(InputError, match="'head' shares its weight with embedding 'table'"):
        convert(tied(), sparsity=0.5, include=(nn.Linear, nn.Embedding), exclude=("middle",))


def test_what_is_named_can_be_pruned_outside_the_blocks():
    model = convert(make("Bert", **TEXT))
    assert list(prunable(model, include=("classifier",))) == ["classifier"]
    assert not any("pooler" in name for name in prunable(model, include=("bert.*",)))
    alone = convert(make("Bert", **TEXT), include=("classifier",), sparsity=0.5)
    assert alone.classifier.mask is not None


def block(hidden=8):
    return nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, hidden))


class Block(nn.Module):
    def __init__(self, experts):
        super().__init__()
        self.attention = nn.Linear(8, 8)
        self.experts = nn.ModuleList(block() for _ in range(experts))


@pytest.mark.parametrize(
    "model,expected",
    [
        (nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8)), []),
        (nn.Sequential(block(), block(), nn.Linear(8, 2)), ["0", "1"]),
        (nn.Sequential(block(), nn.Sequential(nn.Linear(8, 2))), []),
        (nn.ModuleDict({"body": nn.ModuleList([Block(3), Block(1)]), "head": block()}), ["body.0", "body.1"]),
        (nn.ModuleDict({"body": nn.ModuleList([Block(1)]), "head": block()}), []),
        (nn.ModuleList([Block(2)] * 3), ["0", "1", "2"]),
        (nn.ModuleList([nn.ReLU(), nn.ReLU()]), []),
    ],
)
def test_what_counts_as_a_block(model, expected):
    assert list(repeated_blocks(model)) == expected


def tied_linears():
    layers = nn.Sequential(*(nn.Linear(8, 8) for _ in range(4)), nn.Linear(8, 8))
    for layer in layers[1:4]:
        layer.weight = layers[0].weight
    return layers


def test_a_tied_weight_counts_and_is_pruned_once():
    layers = convert(tied_linears())
    with torch.no_grad():
        layers[0].weight.copy_(torch.arange(64).reshape(8, 8) + 1)
        layers[4].weight.fill_(1000)
    assert list(prunable(layers)) == ["0", "4"]
    masks = select_masks({name: layer.weight for name, layer in layers.named_children()}, 0.25, "unstructured")
    assert len({id(mask) for mask in masks.values()}) == 2
    assert int(masks["0"].sum()) == 32 and masks["4"].all()
    pruner = MagnitudePruner(dict(layers.named_children()), SparsitySchedule(0.25, 0, 1), regrow=True)
    pruner.step(1)
    assert pruner.reached() == 0.25 and all(layer.regrow for layer in layers)
    assert len({id(layer.mask) for layer in layers}) == 2


def test_no_warning_where_nothing_is_left_out():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        convert(make("Bert", **TEXT), sparsity=0.5)
