from itertools import pairwise

import pytest
import torch
from torch import nn

from sparseq import InputError, convert
from sparseq.nn import prunable
from sparseq.prune import FisherPruner, MagnitudePruner, Pruner, SparsitySchedule


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


def after_a_step(net, optimizer=torch.optim.AdamW, **settings):
    """An optimizer that has taken a step, and by layer the gradients of it."""
    made = optimizer(net.parameters(), lr=1e-3, **settings)
    torch.manual_seed(1)
    net(torch.randn(64, 32)).pow(4).mean().backward()
    gradients = {name: layer.weight.grad.clone() for name, layer in prunable(net).items()}
    made.step()
    made.zero_grad()
    return made, gradients


@pytest.mark.parametrize("pattern,block", [("unstructured", (1, 1)), ("4x4", (4, 4)), ("1x4", (1, 4))])
@pytest.mark.parametrize("sparsity", [0.3, 0.75])
def test_by_fisher_the_units_that_add_the_least_loss_go(pattern, block, sparsity):
    """The sum of w^2 g^2 over a block, ranked over all layers together; against fp64."""
    net = model()
    with torch.no_grad():
        net[1].weight.mul_(3)  # magnitudes alone would keep this one
    optimizer, gradients = after_a_step(net)
    pruner = FisherPruner(prunable(net), SparsitySchedule(sparsity, 0, 1), optimizer, pattern)
    loss = {}
    for name, layer in pruner.layers.items():
        one = (layer.weight.detach().double() * gradients[name].double()).square()
        rows, columns = one.shape[0] // block[0], one.shape[1] // block[1]
        loss[name] = one.view(rows, block[0], columns, block[1]).sum((1, 3))
    assert pruner.scope == "global"
    pruner.step(1)
    every = torch.cat([one.flatten() for one in loss.values()])
    limit = every.sort().values[round(sparsity * len(every))]
    for name, layer in pruner.layers.items():
        kept = loss[name] >= limit
        expected = kept.repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)
        assert torch.equal(layer.mask, expected)
    assert len({float(one) for one in pruner.sparsities().values()}) > 1


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW, torch.optim.NAdam, torch.optim.RAdam])
def test_fisher_takes_the_moments_of_any_adam(kind):
    net = model()
    optimizer, gradients = after_a_step(net, kind, betas=(0.9, 0.99))
    pruner = FisherPruner(prunable(net), SparsitySchedule(0.5, 0, 4), optimizer)
    for name, found in pruner.importance().items():
        weight = net.get_submodule(name).weight.detach()
        torch.testing.assert_close(found, weight.square() * gradients[name].square() * 0.01)


def test_fisher_without_moments_is_refused_by_name():
    net = model()
    for optimizer in (torch.optim.AdamW(net.parameters()), after_a_step(model(), torch.optim.SGD)[0]):
        pruner = FisherPruner(prunable(net), SparsitySchedule(0.5, 0, 4), optimizer, every=1)
        with pytest.raises(InputError, match=r"no second moments of the gradient of '0' \(exp_avg_sq\).*Adam"):
            pruner.step(1)
        assert net[0].mask is None


def test_by_fisher_masks_only_grow_and_regrown_ones_return():
    for regrow in (False, True):
        net = model()
        optimizer = torch.optim.AdamW(net.parameters(), lr=0.05)
        schedule = SparsitySchedule(0.5, 2, 30)
        pruner = FisherPruner(prunable(net), schedule, optimizer, "4x4", every=2, regrow=regrow)
        torch.manual_seed(2)
        returned = 0
        before = [torch.ones(32, 32, dtype=torch.bool)] * 2
        for step in range(1, 31):
            optimizer.zero_grad()
            net(torch.randn(16, 32)).square().mean().backward()
            optimizer.step()
            pruner.step(step)
            masks = [layer.mask for layer in pruner.layers.values() if layer.mask is not None]
            returned += sum(int((mask & ~old).sum()) for mask, old in zip(masks, before, strict=False))
            before = [mask.clone() for mask in masks] or before
        assert (returned > 0) == regrow and pruner.reached() == pytest.approx(0.5, abs=1e-2)


def test_scores_of_magnitudes_and_embeddings_are_not_for_fisher():
    net = model()
    for scope in ("lamp", "normalized"):
        with pytest.raises(InputError, match=f"scope '{scope}' is of magnitudes: with the criterion fisher"):
            FisherPruner(prunable(net), SparsitySchedule(0.5, 0, 4), after_a_step(net)[0], scope=scope)
    with pytest.raises(InputError, match="scope is 'local': it must be one of"):
        FisherPruner(prunable(net), SparsitySchedule(0.5, 0, 4), after_a_step(net)[0], scope="local")
    embedding = convert(nn.Sequential(nn.Embedding(40, 32), nn.Linear(32, 32)), bits=None)
    with pytest.raises(InputError, match="would remove all embeddings of tokens that the training rows do not have"):
        FisherPruner(
            {"0": embedding[0], "1": embedding[1]},
            SparsitySchedule(0.5, 0, 4),
            torch.optim.Adam(embedding.parameters()),
        )


def test_a_pruner_says_by_what_it_ranks():
    with pytest.raises(TypeError, match="abstract"):
        Pruner(prunable(model()), SparsitySchedule(0.5, 0, 4))
