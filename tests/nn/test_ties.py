"""Layers that share a weight share its mask, through copies, moves and loads."""

import copy
import pickle

import pytest
import torch
from torch import nn

from sparseq import convert


def tied_linears(count=4, **settings):
    layers = nn.Sequential(*(nn.Linear(8, 8) for _ in range(count)))
    for layer in layers[1:]:
        layer.weight = layers[0].weight
    return convert(layers, **settings)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m,
        copy.deepcopy,
        lambda m: pickle.loads(pickle.dumps(m)),
        lambda m: m.double(),
        lambda m: m._apply(torch.clone),  # as a move to another device does
    ],
    ids=["as it is", "deepcopy", "pickle", "double", "moved"],
)
def test_tied_layers_share_one_mask(change):
    model = tied_linears(sparsity=0.5)
    model = change(model)
    assert len({id(layer.weight) for layer in model}) == len({id(layer.mask) for layer in model}) == 1
    model[2].set_mask(torch.zeros(8, 8, dtype=torch.bool, device=model[2].weight.device))
    assert len({id(layer.mask) for layer in model}) == 1
    model[1].set_mask(None)
    assert all(layer.mask is None for layer in model)


def test_tied_layers_share_one_mask_after_loading():
    source = tied_linears(sparsity=0.5)
    for assign in (False, True):
        other = tied_linears()
        other.load_state_dict(source.state_dict(), assign=assign)
        assert all(torch.equal(layer.mask, source[0].mask) for layer in other)
    other = tied_linears()
    other.load_state_dict(source.state_dict())
    assert len({id(layer.mask) for layer in other}) == 1
