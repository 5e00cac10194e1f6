"""Learned scales: their group in an optimizer, and the bound that no optimizer brings them below."""

import math

import pytest
import torch
from torch import nn

from sparseq import InputError, convert, pack, parameter_groups
from sparseq.nn import QuantSparseLinear
from sparseq.nn.groups import SCALE_LR
from sparseq.nn.linear import MOST_CLIPPED
from sparseq_kernels.numerics import qmax, row_max, scale_from_max
from sparseq_kernels.reference.fake_quant import fake_quant


def net(bits=8, activation="dynamic", seed=0):
    torch.manual_seed(seed)
    layers = nn.Sequential(nn.Linear(32, 64), nn.LayerNorm(64), nn.Linear(64, 8))
    return convert(layers, bits=bits, scale="lsq", activation=activation)


def names_of(groups, model):
    names = {id(p): name for name, p in model.named_parameters()}
    return [{names[id(p)] for p in group["params"]} for group in groups]


def sqnr(layer):
    noise = layer.weight - fake_quant(layer.weight, layer.channel_scale().unsqueeze(-1), layer.bits)
    return 10 * math.log10((layer.weight.square().sum() / noise.square().sum()).item())


def trained(model, optimizer, steps):
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        x = torch.randn(16, 32, generator=generator)
        optimizer.zero_grad()
        (model(x) - x[:, :8]).square().mean().backward()
        optimizer.step()
    return model


def test_the_groups():
    model = net(activation="static")
    groups = parameter_groups(model, lr=2e-4, weight_decay=0.1)
    assert names_of(groups, model) == [
        {"0.weight", "2.weight"},
        {"0.bias", "1.weight", "1.bias", "2.bias"},
        {"0.step_size", "0.input_scale", "2.step_size", "2.input_scale"},
    ]
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [
        (2e-4, 0.1),
        (2e-4, 0.0),
        (pytest.approx(SCALE_LR * 2e-4), 0.0),
    ]


def test_every_parameter_that_is_trained_is_in_one_group():
    model = net()
    model[2].bias.requires_grad_(False)
    model.add_module("again", model[0])  # tied: one parameter with two names
    grouped = [p for group in parameter_groups(model, lr=1.0) for p in group["params"]]
    assert {id(p) for p in grouped} == {id(p) for p in model.parameters() if p.requires_grad}
    assert len(grouped) == len({id(p) for p in grouped})


def test_a_model_without_learned_scales_has_no_group_for_them():
    model = nn.Sequential(nn.Linear(4, 4, bias=False))
    assert [len(group["params"]) for group in parameter_groups(model, lr=1.0)] == [1]
    assert parameter_groups(QuantSparseLinear(4, 4, scale="lsq"), lr=1.0)[2]["lr"] == SCALE_LR


def test_what_is_decayed_can_be_said():
    model = net()
    groups = parameter_groups(model, 1.0, 0.1, decayed={"0.weight", "0.step_size"})
    assert names_of(groups, model)[0] == {"0.weight"} and names_of(groups, model)[2] == {"0.step_size", "2.step_size"}


@pytest.mark.parametrize("bad", [{"lr": -1.0}, {"lr": 1.0, "weight_decay": -0.1}, {"lr": 1.0, "scale_lr": math.nan}])
def test_rates_that_cannot_be(bad):
    with pytest.raises(InputError, match="it must not be below 0"):
        parameter_groups(net(), **bad)


def test_adam_keeps_the_scales_where_they_have_their_group():
    def after_forty_steps(groups):
        model = net()
        with torch.no_grad():
            for layer in (model[0], model[2]):
                layer.weight.normal_(std=0.1)
                layer.reset_weight_scale()
        before = sqnr(model[0])
        trained(model, torch.optim.AdamW(groups(model)), 40)
        return before - sqnr(model[0])

    assert after_forty_steps(lambda model: parameter_groups(model, lr=3e-4)) < 4
    assert after_forty_steps(lambda model: [{"params": model.parameters(), "lr": 3e-4}]) > 8


@pytest.mark.parametrize("bits", [4, 8, 16])
@pytest.mark.parametrize("value", [0.0, -1e-9, 1e-30, -1e-3, 1e-6])
def test_no_learned_scale_clips_a_whole_row(bits, value):
    model = net(bits)
    layer = model[0]
    with torch.no_grad():
        layer.step_size.fill_(value)
    least = row_max(layer.weight.detach()) / (MOST_CLIPPED * qmax(bits))
    scale = layer.channel_scale()
    assert (scale >= least).all() and (scale > 0).all()
    torch.testing.assert_close(scale, torch.maximum(least, torch.tensor(abs(value))))


@pytest.mark.parametrize("value", [0.0, -1e-3, 1e-7])
@pytest.mark.parametrize("bits", [4, 8])
def test_training_and_packed_forms_agree_about_the_bound(bits, value):
    model = net(bits).eval()
    with torch.no_grad():
        for layer in (model[0], model[2]):
            layer.step_size.fill_(value)
    x = torch.randn(5, 32)
    torch.testing.assert_close(pack(model)(x), model(x), rtol=1e-5, atol=1e-6)


def test_the_bound_follows_the_masked_weights():
    layer = net()[0]
    mask = torch.ones(layer.weight.shape, dtype=torch.bool)
    mask[0] = False
    with torch.no_grad():
        layer.step_size.zero_()
    layer.set_mask(mask)
    x = torch.randn(3, 32)
    assert torch.equal(layer(x)[:, 0], layer.bias[0].expand(3)) and layer(x).isfinite().all()


def test_scales_above_the_bound_are_used_as_they_are_and_learn():
    layer = net()[0]
    torch.testing.assert_close(layer.channel_scale(), layer.step_size.detach(), rtol=0, atol=0)
    torch.testing.assert_close(layer.step_size.detach(), scale_from_max(row_max(layer.weight.detach()), 8))
    layer(torch.randn(9, 32)).square().sum().backward()
    assert layer.step_size.grad.ne(0).any()


def test_a_weight_that_is_not_finite_is_not_hidden():
    layer = net()[0]
    with torch.no_grad():
        layer.weight[3, 4] = math.nan
    assert layer(torch.randn(2, 32))[:, 3].isnan().all()


def bounded_by_formula(layer):
    kept = torch.where(layer.mask, layer.weight, 0.0).detach().abs().amax(1)
    return torch.maximum(layer.step_size.detach().abs(), kept / (MOST_CLIPPED * qmax(layer.bits)))


@pytest.mark.parametrize("regrow", [False, True])
@pytest.mark.parametrize("shrink", [1.0, 0.05, 1e-4])
@pytest.mark.parametrize("bits", [4, 8])
def test_the_bound_of_a_masked_layer_is_by_what_is_kept(bits, shrink, regrow):
    """Though what is removed is looked at first: with `regrow` it can be larger than what is kept."""
    layer = net(bits)[0]
    layer.regrow = regrow
    layer.set_mask(layer.weight.abs() < layer.weight.abs().median())  # the largest go
    if regrow:
        with torch.no_grad():
            layer.weight[:, ::3] *= 100
            layer.mask[:, ::3] = False
    with torch.no_grad():
        layer.step_size.mul_(shrink)
        layer.step_size[::2] *= 0.3
    assert torch.allclose(layer.channel_scale(), bounded_by_formula(layer), rtol=1e-6)
    layer.step_size.grad = None
    layer._learned_scale().sum().backward()
    free = layer.step_size.detach() > bounded_by_formula(layer) * 0.999
    assert torch.equal(layer.step_size.grad, free.float())


def test_scales_that_need_no_bound_spare_the_masked_copy(monkeypatch):
    layer = net()[0]
    layer.set_mask(layer.weight.abs() > 0.05)
    before = layer.channel_scale()
    monkeypatch.setattr(QuantSparseLinear, "masked_weight", lambda self: pytest.fail("a masked copy was made"))
    assert torch.equal(layer.channel_scale(), before)
    with torch.no_grad():
        layer.step_size.fill_(1e-9)
    with pytest.raises(pytest.fail.Exception, match="masked copy"):
        layer.channel_scale()
