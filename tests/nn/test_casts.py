"""Casts and torch's global defaults: scales stay as precise as arithmetic is, and nothing follows a default unasked."""

import copy

import pytest
import torch
from torch import nn

from sparseq import calibrate, convert
from sparseq.nn import QuantEmbedding, QuantSparseLinear
from sparseq_kernels import use_backend

STATIC = [{"activation": "static"}, {"activation": "static", "scale": "lsq"}]
X = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))


def net(**settings):
    torch.manual_seed(0)
    return convert(nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)), **settings)


@pytest.mark.parametrize("cast", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("settings", [{"scale": "lsq"}, *STATIC], ids=str)
def test_scales_stay_as_precise_as_arithmetic_is(cast, settings):
    model = net(**settings)
    with torch.no_grad():
        model[0].weight.mul_(1e-4)
    model[0].reset_weight_scale()
    model(X)
    before = {n: t.detach().clone() for n, t in model.state_dict().items() if n.endswith(("step_size", "input_scale"))}
    model.to(cast)
    wanted = torch.float64 if cast == torch.float64 else torch.float32
    for name, tensor in model.state_dict().items():
        if name in before:
            assert tensor.dtype == wanted and torch.equal(tensor, before[name].to(wanted))
        else:
            assert tensor.dtype == cast
    y = model(X.to(cast))
    y.sum().backward()
    assert y.dtype == cast and torch.isfinite(y).all()
    assert QuantSparseLinear(8, 4, dtype=cast, scale="lsq", activation="static").step_size.dtype == wanted
    assert QuantSparseLinear(8, 4, dtype=cast, activation="static").input_scale.dtype == wanted


@pytest.mark.parametrize("default", [torch.float64, torch.bfloat16, torch.float16])
def test_global_defaults_of_dtype_do_not_reach_into_a_layer(default):
    made = [QuantSparseLinear(8, 4, activation="static", scale=s, dtype=torch.float32) for s in ("max", "lsq")]
    table = QuantEmbedding(5, 8, dtype=torch.float32)
    table.set_mask(torch.ones(5, 8, dtype=torch.bool))
    with use_backend("reference"):
        expected = [layer(X).detach() for layer in made], table(torch.tensor([1]))
    states = [copy.deepcopy(layer.state_dict()) for layer in made]
    torch.set_default_dtype(default)
    try:
        with use_backend("reference"):
            for layer, state, y in zip(made, states, expected[0], strict=True):
                again = QuantSparseLinear.from_settings(layer.settings())
                assert all(t.dtype in (torch.float32, torch.bool) for t in again.state_dict().values())
                again.load_state_dict(state)
                assert torch.equal(again.eval()(X), y) and torch.equal(layer(X), y)
                assert torch.equal(calibrate(layer, [{"input": X}])(X), y)
            assert torch.equal(table(torch.tensor([1])), expected[1])
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_default_device_does_not_reach_into_a_layer():
    layer, state = QuantSparseLinear(8, 4, activation="static", scale="lsq"), None
    mask = torch.rand(4, 8) > 0.5
    y = layer(X)
    with torch.device("meta"):
        twin = QuantSparseLinear.from_linear(layer.to_linear(), activation="static", scale="lsq")
        twin.set_mask(mask)
        layer.set_mask(mask)
        layer.reset_weight_scale()
        state = layer.state_dict()
        again = copy.deepcopy(layer)
        back = layer.to_linear()
    assert {t.device.type for m in (twin, layer, again, back) for t in m.state_dict().values()} == {"cpu"}
    assert torch.isfinite(layer(X)).all() and y.device.type == "cpu"
    twin.load_state_dict(state)
