"""Models that were made in inference mode run fused as others do."""

import copy

import pytest
import torch
from fused_models import batch, packed, plain

from sparseq import checkpoint
from sparseq.nn import convert, fused_way, pack


@pytest.fixture(autouse=True)
def _any_way(way):
    if way == "by ops":
        pytest.skip("the way is asked for here")


def made_by(how, folder):
    from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification

    if how == "pack":
        return pack(convert(plain(), sparsity=0.5))
    if how == "tied":
        return pack(convert(plain(head="ForMaskedLM")))
    if how == "load":
        return checkpoint.load(folder)
    if how == "load into a model":
        return checkpoint.load(folder, plain())
    of = AutoModelForMaskedLM if "Masked" in how else AutoModelForSequenceClassification
    return of.from_pretrained(folder).eval()


def ties(model):
    """The names by which tensors are there several times."""
    names = {}
    for name, tensor in [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]:
        names.setdefault(id(tensor), []).append(name)
    return sorted(several for several in names.values() if len(several) > 1)


@pytest.mark.parametrize(
    "how", ["pack", "tied", "load", "load into a model", "from_pretrained", "from_pretrained, Masked"]
)
def test_as_those_made_outside_of_it(how, tmp_path):
    head = "ForMaskedLM" if "Masked" in how else "ForSequenceClassification"
    checkpoint.save(packed(head=head), tmp_path)
    expected = made_by(how, tmp_path)
    with torch.inference_mode():
        model = made_by(how, tmp_path)
        assert fused_way(model) == fused_way(expected)
        assert torch.equal(model(**batch()).logits, expected(**batch()).logits)
    if head == "ForMaskedLM" or how == "tied":
        assert ties(model) == ties(expected) != []
    assert not any(tensor.is_inference() for tensor in (*model.parameters(), *model.buffers()))
    flags = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    assert flags == {name: parameter.requires_grad for name, parameter in expected.named_parameters()}


def test_moves_in_it_run_fused():
    expected = packed()
    with torch.inference_mode():
        model = packed().double().float()
        assert fused_way(model) == fused_way(expected)
        assert torch.equal(model(**batch()).logits, expected(**batch()).logits)
    assert not any(tensor.is_inference() for tensor in (*model.bert.parameters(), *model.bert.buffers()))


def test_copies_in_it_run_layer_by_layer():
    """Nothing of ours is called then that could make usual tensors of them."""
    with torch.inference_mode():
        model = copy.deepcopy(packed())
        assert "copied in inference mode: do that outside" in str(fused_way(model))
        # Nor can they be moved outside of it.
        moved = model.double().float()
        assert moved(**batch()).logits.shape == packed()(**batch()).logits.shape


def test_changes_are_seen():
    with torch.inference_mode():
        model = packed()
    with torch.no_grad():
        before = model(**batch()).logits
        model.bert.encoder.layer[0].attention.output.LayerNorm.weight.mul_(2)
        after = model(**batch()).logits
        assert not torch.equal(before, after)
        assert torch.equal(after, copy.deepcopy(model)(**batch()).logits)
