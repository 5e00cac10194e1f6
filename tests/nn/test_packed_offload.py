"""accelerate's ways to hold a model elsewhere than where it runs, with packed layers of every format."""

import copy

import pytest
import torch
from packed_layers import FORMS, embedding, linear
from torch import nn

from sparseq.nn import convert, pack

accelerate = pytest.importorskip("accelerate")
IDS = torch.tensor([[0, 3, 15], [7, 7, 1]])


def model_of(form):
    return nn.Sequential(embedding(*form), nn.LayerNorm(32), linear(*form), nn.Linear(16, 4)).eval()


def cpu_offload(model, tmp_path, buffers):
    return accelerate.cpu_offload(model, execution_device="cpu", offload_buffers=buffers)


def disk_offload(model, tmp_path, buffers):
    return accelerate.disk_offload(model, tmp_path / "disk", execution_device="cpu", offload_buffers=buffers)


def dispatched(model, tmp_path, buffers):
    places = {"0": "cpu", "1": "disk", "2": "disk", "3": "cpu"}
    return accelerate.dispatch_model(
        model, places, main_device="cpu", offload_dir=tmp_path / "disk", offload_buffers=buffers, force_hooks=True
    )


@pytest.mark.parametrize("buffers", [False, True])
@pytest.mark.parametrize("offload", [cpu_offload, disk_offload, dispatched])
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_an_offloaded_model_gives_what_it_gave(form, offload, buffers, tmp_path):
    model = model_of(form)
    expected = model(IDS)
    offloaded = offload(model, tmp_path, buffers)
    for _ in range(3):
        assert torch.equal(offloaded(IDS), expected)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_empty_weights_are_filled(form):
    from accelerate.utils import set_module_tensor_to_device

    model = model_of(form)
    with accelerate.init_empty_weights(include_buffers=True):
        empty = nn.Sequential(
            type(model[0]).from_settings(model[0].settings()),
            nn.LayerNorm(32),
            type(model[2]).from_settings(model[2].settings()),
            nn.Linear(16, 4),
        ).eval()
    assert all(tensor.is_meta for tensor in empty.state_dict().values())
    for name, tensor in model.state_dict().items():
        set_module_tensor_to_device(empty, name, "cpu", value=tensor)
    assert torch.equal(empty(IDS), model(IDS))


def test_a_whole_packed_bert(tmp_path):
    from transformers import BertConfig, BertForMaskedLM

    shape = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    torch.manual_seed(0)
    model = pack(convert(BertForMaskedLM(BertConfig(**shape, intermediate_size=64)), sparsity=0.6))
    expected = model(IDS).logits
    for offload in (cpu_offload, disk_offload):
        for buffers in (False, True):
            offloaded = offload(copy.deepcopy(model), tmp_path / f"{offload.__name__}{buffers}", buffers)
            torch.testing.assert_close(offloaded(IDS).logits, expected)
