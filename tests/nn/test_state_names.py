"""The names under which layers keep their state: transformers' patterns catch none of them, and old ones load."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from sparseq import convert, pack
from sparseq.nn import RENAMED_STATE, QuantEmbedding, QuantSparseLinear

transformers = pytest.importorskip("transformers", reason="the model tests need sparseq[train]")


def own_names():
    """Every name of a state beside those of the plain layers."""
    linear = QuantSparseLinear(4, 4, scale="lsq", activation="static")
    linear.set_mask(torch.ones(4, 4, dtype=torch.bool))
    table = QuantEmbedding(4, 4)
    table.set_mask(torch.ones(4, 4, dtype=torch.bool))
    return sorted({*linear.state_dict(), *table.state_dict()} - {"weight", "bias"})


def patterns(attribute):
    """All strings that any of transformers' models gives for the class attribute, as the sources hold them."""
    assignment = re.compile(rf"^    {attribute} = (.*?[\]}}]$|None$)", re.MULTILINE | re.DOTALL)
    found = set()
    for path in Path(transformers.__file__).parent.glob("models/*/modeling_*.py"):
        for text in assignment.findall(path.read_text(encoding="utf-8")):
            found |= {first or second for first, second in re.findall(r"\"([^\"]+)\"|'([^']+)'", text)}
    return found


@pytest.mark.parametrize(
    "attribute", ["_tied_weights_keys", "_keys_to_ignore_on_load_unexpected", "_keys_to_ignore_on_load_missing"]
)
def test_no_pattern_that_names_a_tensor_catches_a_name_of_ours(attribute):
    found = patterns(attribute)
    assert len(found) > 15
    # A pattern that names a whole module may catch all that the module holds; one that ends in a tensor's name may not.
    tensors = [p for p in found if re.search(r"(weight|bias|mask|scale|ids|index|inv_freq)\W*$", p)]
    assert len(tensors) > 5
    for pattern in tensors:
        module = re.sub(r"\.?\w+\W*$", "", pattern)
        for name in own_names():
            full = f"{module}.{name}" if module else name
            assert not re.search("^" + pattern, full), f"{pattern} of {attribute} catches {full}"


def test_the_names_of_earlier_releases_load():
    first = QuantSparseLinear(6, 4, scale="lsq")
    with torch.no_grad():
        first.step_size.mul_(1.5)
    new_to_old = {new: old for old, new in RENAMED_STATE.items()}
    old = {new_to_old.get(name, name): tensor for name, tensor in first.state_dict().items()}
    assert "weight_scale" in old
    second = QuantSparseLinear(6, 4, scale="lsq")
    assert not any(second.load_state_dict(old))
    assert torch.equal(second.step_size, first.step_size) and second.weight_scale is second.step_size
    assert "weight_scale" in old, "the caller's dictionary was changed"


def masked_lm(**settings):
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    )
    return convert(transformers.BertForMaskedLM(config).eval(), **settings)


def test_tying_again_leaves_scales_alone():
    model = masked_lm(scale="lsq")
    head, table = model.cls.predictions.decoder, model.bert.embeddings.word_embeddings
    before, step = model(torch.arange(6)[None]).logits, head.step_size
    model.tie_weights()
    assert head.step_size is step and isinstance(head.step_size, nn.Parameter) and head.step_size.shape == (40,)
    assert head.weight is table.weight and torch.equal(model(torch.arange(6)[None]).logits, before)


@pytest.mark.parametrize("exclude", [(), "bert.embeddings.*", "cls.*"], ids=str)
def test_tying_a_packed_model_again_changes_nothing(exclude):
    packed, ids = pack(masked_lm(exclude=exclude)), torch.arange(6)[None]
    before, state = packed(ids).logits, {name: id(t) for name, t in packed.state_dict(keep_vars=True).items()}
    packed.tie_weights()
    packed.init_weights()
    assert {name: id(t) for name, t in packed.state_dict(keep_vars=True).items()} == state
    assert torch.equal(packed(ids).logits, before)


def test_the_trainer_takes_the_groups(tmp_path):
    from transformers import TrainingArguments

    from sparseq.train.trainer import CompressTrainer

    model = nn.Sequential(QuantSparseLinear(4, 4, scale="lsq", activation="static"), nn.LayerNorm(4))
    trainer = CompressTrainer.__new__(CompressTrainer)
    trainer.args = TrainingArguments(output_dir=str(tmp_path), learning_rate=1e-3, weight_decay=0.1, use_cpu=True)
    trainer.model, trainer.optimizer, trainer.optimizer_cls_and_kwargs = model, None, None
    groups = trainer.create_optimizer().param_groups
    names = {id(p): name for name, p in model.named_parameters()}
    assert [(group["lr"], group["weight_decay"], [names[id(p)] for p in group["params"]]) for group in groups] == [
        (1e-3, 0.1, ["0.weight"]),
        (1e-3, 0.0, ["0.bias", "1.weight", "1.bias"]),
        (1e-5, 0.0, ["0.step_size", "0.input_scale"]),
    ]
