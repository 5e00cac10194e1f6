from itertools import pairwise

import pytest
import torch
from torch import nn

from sparseq import InputError, convert
from sparseq.nn import prunable
from sparseq.prune import MagnitudePruner, SparsitySchedule


def model():
    torch.manual_seed(0)
    return convert(nn.Sequential(nn.Linear(32, 32), nn.Linear(32, 32)), bits=None, pattern="4x4")


@pytest.mark.parametrize(
    "shape,values", [("linear", [0, 0, 0.2, 0.4, 0.6, 0.8, 0.8]), ("cubic", [0, 0, 0.8 * (1 - 0.75**3)])]
)
def test_the_schedule(shape, values):
    schedule = SparsitySchedule(0.8, warmup_steps=10, end_step=50, shape=shape)
    assert [schedule.at(s) for s in range(0, 70, 10)][: len(values)] == pytest.approx(values)
    assert schedule.at(10**6) == 0.8


def test_schedules_that_cannot_be():
    with pytest.raises(InputError, match="schedule 'square' is unknown: use 'linear' or 'cubic'"):
        SparsitySchedule(0.5, 0, 10, "square")
    with pytest.raises(InputError, match="must warm up before it ends, not for 20 steps of 10"):
        SparsitySchedule(0.5, 20, 10)


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("pattern,units", [("unstructured", 2048), ("4x4", 128), ("2:4", 512)])
def test_the_final_sparsity_is_exact_to_one_unit(scope, pattern, units):
    net = model()
    final = 0.5 if pattern == "2:4" else 0.6
    pruner = MagnitudePruner(prunable(net), SparsitySchedule(final, 2, 20), pattern, scope, every=3)
    seen = []
    for step in range(1, 25):
        pruner.step(step)
        seen.append(pruner.reached())
    assert abs(seen[-1] - final) <= 1 / units and seen == sorted(seen) and 0 < seen[8] < final
    assert seen[18] < final and abs(seen[19] - final) <= 1 / units


def train(pruner, net, steps):
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.05, weight_decay=0.1)
    history = []
    for step in range(1, steps + 1):
        loss = net(torch.randn(16, 32)).square().mean() + net[0].weight.sum() * 0.1
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        pruner.step(step)
        history.append([layer.mask for layer in pruner.layers.values()])
    return history


def test_masks_only_grow_and_momentum_does_not_move_masked_weights():
    net = model()
    history = train(MagnitudePruner(prunable(net), SparsitySchedule(0.7, 2, 20), "4x4", every=1), net, 25)
    for layer in (net[0], net[1]):
        assert not layer.weight[~layer.mask].any()
    for before, after in pairwise(history[4:]):
        for a, b in zip(before, after, strict=True):
            assert not (b & ~a).any()


def test_regrowth_can_bring_weights_back():
    net = model()
    history = train(MagnitudePruner(prunable(net), SparsitySchedule(0.7, 2, 20), "4x4", every=1, regrow=True), net, 25)
    came_back = [(b & ~a).any() for x, y in pairwise(history[4:]) for a, b in zip(x, y, strict=True)]
    assert any(came_back)


def test_a_late_start_catches_up():
    net = model()
    pruner = MagnitudePruner(prunable(net), SparsitySchedule(0.5, 2, 20))
    pruner.step(100)
    assert pruner.reached() == 0.5


def test_nothing_to_prune():
    with pytest.raises(InputError, match="there is nothing to prune"):
        MagnitudePruner({}, SparsitySchedule(0.5, 0, 1))
