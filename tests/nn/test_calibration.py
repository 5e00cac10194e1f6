"""What a static activation range ends at, and what it follows in training."""

import math
from copy import deepcopy

import pytest
import torch
from torch import nn

from sparseq import InputError, calibrate, convert, pack
from sparseq.nn.ranges import METHODS, Histogram, SquaredError
from sparseq.nn.static_scale import AVERAGE_STEP
from sparseq_kernels.reference.fake_quant import fake_quant

BITS = 8


def net(**settings):
    torch.manual_seed(0)
    return convert(nn.Sequential(nn.Linear(4, 4)), activation="static", **settings)


def batch(largest, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(64, 4, generator=generator)
    return {"input": x * (largest / x.abs().max())}


def scale_after(batches, **options):
    return calibrate(net(), batches, **options)[0].input_scale.item()


def test_max_takes_the_largest_and_average_the_mean_of_the_largest():
    batches = [batch(v) for v in (1.0, 2.0, 9.0)]
    assert scale_after(batches) == scale_after(batches, method="max") == pytest.approx(9 / 127)
    assert scale_after(batches, method="average") == pytest.approx(4 / 127)


def test_the_percentile_is_that_of_all_values():
    x = torch.arange(1.0, 10_001).reshape(-1, 4)
    for percentile in (50, 90, 99.9, 99.99, 100):
        exact = 10_000 * percentile / 100
        found = 127 * scale_after(
            [{"input": x[:1000]}, {"input": -x[1000:]}], method="percentile", percentile=percentile
        )
        assert exact <= found * (1 + 1e-6) and found <= exact * (1 + 1 / 64)


def test_mse_finds_the_range_of_least_error():
    generator = torch.Generator().manual_seed(0)
    for bits, x in (
        (4, torch.randn(40_000, generator=generator)),
        (8, torch.randn(40_000, generator=generator)),
        (8, torch.randn(40_000, generator=generator) ** 3),
    ):
        found = SquaredError()
        for part in x.chunk(4):
            found.observe(part)
        limit = 2 ** (bits - 1) - 1

        def error(largest, x=x, bits=bits, limit=limit):
            return (fake_quant(x, torch.tensor(largest / limit), bits) - x).square().mean().item()

        least = min(error(x.abs().max().item() * share / 100) for share in range(2, 101))
        assert error(found.largest(bits).item()) <= 1.03 * least


@pytest.mark.parametrize("method", ["average", "percentile"])
def test_one_outlier_does_not_widen_the_range_for_good(method):
    usual = [batch(3.0, seed) for seed in range(40)]
    outlier = [*usual[:20], {"input": usual[0]["input"].clone()}, *usual[20:]]
    outlier[20]["input"][0, 0] = 300.0
    assert scale_after(outlier) == pytest.approx(300 / 127)
    assert scale_after(outlier, method=method, percentile=99.9) < 12 / 127
    assert scale_after(usual, method=method) <= 3.0001 / 127


@pytest.mark.parametrize("top", [1e-30, 1e-3, 1.0, 1e30])
@pytest.mark.parametrize("method", METHODS)
def test_a_constant_input_has_its_own_range_at_every_size(method, top):
    found = scale_after([{"input": torch.full((8, 4), top)}], method=method)
    assert found == pytest.approx(top / 127, rel=0.02)


@pytest.mark.parametrize("method", METHODS)
def test_zeros_have_a_scale(method):
    assert 0 < scale_after([{"input": torch.zeros(8, 4)}], method=method) < 1e-20


@pytest.mark.parametrize("method", ["percentile", "mse"])
def test_zeros_do_not_count(method):
    x = torch.zeros(1000, 4)
    x[0] = 2.0
    assert scale_after([{"input": x}], method=method, percentile=50) == pytest.approx(2 / 127, rel=0.02)


def test_bins_hold_every_magnitude_at_all_sizes():
    values = torch.tensor([0.0, 1e-45, 1e-38, 2.0**-100, 0.5, 1.0, 1.999, 65504.0, 3.4e38])
    found = Histogram()
    found.observe(values)
    found.observe(-values)
    assert found.counts.sum() == 16 and found.top == values.max().double()
    edges, _ = found.found()
    assert edges.diff().ge(0).all() and edges[-1] == found.top


@pytest.mark.parametrize("method", METHODS)
def test_batches_in_another_order_give_the_same_first_range(method):
    batches = [batch(v, seed) for seed, v in enumerate((1.0, 5.0, 2.0, 8.0))]
    assert scale_after(batches, method=method) == pytest.approx(scale_after(batches[::-1], method=method), rel=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_what_training_follows(method):
    model = calibrate(net(), [batch(4.0)], method=method).train()
    before = model[0].input_scale.item()
    model(**batch(127.0))
    expected = {"max": 1.0, "average": before + AVERAGE_STEP * (1.0 - before)}.get(method, before)
    assert model[0].input_scale.item() == pytest.approx(expected)
    for _ in range(3):
        model(**batch(1.0))
    after = model[0].input_scale.item()
    assert after < expected if method == "average" else after == pytest.approx(expected)
    model(torch.full((1, 4), math.nan))
    assert model[0].input_scale.item() == after


def test_an_average_comes_back_from_an_outlier():
    model = calibrate(net(), [batch(1.0)], method="average").train()
    model(**batch(100.0))
    wide = model[0].input_scale.item()
    for _ in range(300):
        model(**batch(1.0))
    assert wide > 1.9 / 127 and model[0].input_scale.item() < 1.1 / 127


@pytest.mark.parametrize("method", METHODS)
def test_a_layer_without_a_scale_takes_its_first_batch(method):
    model = net().train()
    model[0].range_follows = method
    model(**batch(5.0))
    assert model[0].input_scale.item() == pytest.approx(5 / 127)


@pytest.mark.parametrize("method", METHODS)
def test_copies_follow_the_same_and_packing_agrees(method):
    model = calibrate(net(), [batch(4.0, seed) for seed in range(3)], method=method)
    copy = deepcopy(model)
    assert copy[0].range_follows == method
    x = batch(4.0)["input"]
    torch.testing.assert_close(pack(model)(x), model.eval()(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_learned_scales_begin_at_the_range(method):
    model = calibrate(net(scale="lsq"), [batch(4.0, seed) for seed in range(3)], method=method).train()
    before = model[0].input_scale.item()
    assert before == pytest.approx(scale_after([batch(4.0, seed) for seed in range(3)], method=method))
    model(**batch(100.0))
    assert model[0].input_scale.item() == before


@pytest.mark.parametrize("method", METHODS)
def test_a_bad_batch_leaves_everything_as_it_was(method):
    model = calibrate(net(), [batch(4.0)], method="average")
    before = model[0].input_scale.clone()
    with pytest.raises(InputError, match="calibration batch 1 "):
        calibrate(model, [batch(1.0), {"input": torch.full((1, 4), math.inf)}], method=method)
    assert torch.equal(model[0].input_scale, before) and model[0].range_follows == "average"


def test_what_is_refused():
    with pytest.raises(InputError, match="method is 'median': it must be one of 'max', 'average', 'percentile', 'mse'"):
        calibrate(net(), [batch(1.0)], method="median")
    for bad in (0, 101, math.nan):
        with pytest.raises(InputError, match=r"percentile is .*: it must be above 0 and at most 100"):
            calibrate(net(), [batch(1.0)], method="percentile", percentile=bad)
