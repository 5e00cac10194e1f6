"""Layers ranked together: the layer-adaptive scores, the counts, and what no layer loses."""

import math
from itertools import product

import pytest
import torch

from sparseq import InputError, convert
from sparseq.nn.ranking import lamp_scores, most_dropped, normalized_scores
from sparseq.nn.selection import MAX_LAYER_SPARSITY, scope_for, select_masks
from sparseq_kernels import Pattern


def units_of(weight, pattern):
    """(score, where) of each unit in plain Python: blocks by summed magnitude, groups by what pruning to N loses."""
    p, found = Pattern.parse(pattern), []
    rows, columns = p.block
    for a, b in product(range(0, weight.shape[0], rows), range(0, weight.shape[1], columns)):
        values = sorted(abs(v) for row in weight[a : a + rows, b : b + columns].tolist() for v in row)
        if p.kind == "n:m":
            values = values[: p.unit]
        found.append((sum(values), (a, b)))
    return found


def lamp(scores):
    """Lee et al. 2021, equation 4, of ascending scores."""
    rest, found = 0.0, []
    for score in reversed(scores):
        rest += score**2
        found.append(score**2 / rest if rest else 0.0)
    return found[::-1]


def normalized(scores):
    """Each over the root of the mean of the squares."""
    size = math.sqrt(math.fsum(score**2 for score in scores) / len(scores))
    return [score / size if size else 0.0 for score in scores]


def by_definition(weights, sparsity, pattern, formula):
    """Slowly: every unit's score, all of them sorted, the lowest dropped; the largest hundredth of a layer goes
    last."""
    p, ranked = Pattern.parse(pattern), []
    for i, weight in enumerate(weights):
        order = sorted(enumerate(units_of(weight, pattern)), key=lambda unit: (unit[1][0], unit[0]))
        free = most_dropped(len(order), sparsity, MAX_LAYER_SPARSITY) if p.kind != "n:m" else len(order)
        scores = formula([score for _, (score, _) in order])
        for place, ((_, (_, where)), score) in enumerate(zip(order, scores, strict=True)):
            ranked.append((place >= free, score, i, place, where))
    count = round(sparsity / p.max_sparsity * len(ranked))
    return [{where for *_, j, _, where in sorted(ranked)[:count] if j == i} for i in range(len(weights))]


def dropped_of(mask, pattern):
    p = Pattern.parse(pattern)
    rows, columns = p.block
    size = p.first if p.kind == "n:m" else 0
    cells = product(range(0, mask.shape[0], rows), range(0, mask.shape[1], columns))
    return {(a, b) for a, b in cells if int(mask[a : a + rows, b : b + columns].sum()) == size}


@pytest.mark.parametrize("ties", [False, True], ids=["distinct", "ties"])
@pytest.mark.parametrize("sparsity", [0.1, 0.37, 0.5, 0.9])
@pytest.mark.parametrize("pattern", ["unstructured", "4x4", "2x8", "2:4"])
@pytest.mark.parametrize("formula", [lamp, normalized])
def test_masks_are_those_of_the_definition(formula, pattern, sparsity, ties):
    sparsity = min(sparsity, Pattern.parse(pattern).max_sparsity)
    generator = torch.Generator().manual_seed(int(100 * sparsity))
    # Multiples of 2^-8, whose sums and squares are exact in fp32 and fp64, in layers whose magnitudes differ.
    weights = [
        (torch.randn(shape, generator=generator) * size).mul(2 if ties else 256).round() / 256
        for shape, size in (((8, 16), 1.0), ((16, 8), 8.0), ((8, 8), 0.25))
    ]
    masks = select_masks(dict(enumerate(weights)), sparsity, pattern, formula.__name__)
    for i, want in enumerate(by_definition(weights, sparsity, pattern, formula)):
        assert dropped_of(masks[i], pattern) == want


def test_lamp_scores_of_a_layer():
    found = lamp_scores(torch.tensor([0.0, 1.0, 2.0, 2.0], dtype=torch.float64))
    assert found.tolist() == [0, 1 / 9, 4 / 8, 1]
    assert lamp_scores(torch.zeros(3, dtype=torch.float64)).tolist() == [0, 0, 0]
    assert lamp_scores(torch.tensor([1.0, math.inf], dtype=torch.float64)).tolist() == [0, 1]
    assert lamp_scores(torch.empty(0, dtype=torch.float64)).tolist() == []


def test_normalized_scores_of_a_layer():
    found = normalized_scores(torch.tensor([0.0, 1.0, 1.0, 4.0], dtype=torch.float64))
    assert found.tolist() == [0, 1 / math.sqrt(4.5), 1 / math.sqrt(4.5), 4 / math.sqrt(4.5)]
    assert normalized_scores(torch.zeros(3, dtype=torch.float64)).tolist() == [0, 0, 0]
    assert normalized_scores(torch.tensor([1.0, math.inf], dtype=torch.float64)).tolist() == [0, math.inf]
    assert normalized_scores(torch.empty(0, dtype=torch.float64)).tolist() == []


def test_layers_that_differ_by_a_factor_lose_the_same_share():
    torch.manual_seed(0)
    weight = torch.randn(64, 64)
    masks = select_masks({"a": weight, "b": weight * 1024}, 0.5, "4x4", "normalized")
    assert torch.equal(masks["a"], masks["b"])


@pytest.mark.parametrize("scope", ["global", "lamp", "normalized"])
@pytest.mark.parametrize("pattern,unit", [("unstructured", 1), ("4x4", 16)])
@pytest.mark.parametrize("sparsity", [0.5, 0.8, 0.995])
def test_no_layer_is_removed_and_the_count_is_exact(scope, pattern, unit, sparsity):
    torch.manual_seed(0)
    weights = {"large": torch.randn(64, 64), "small": torch.randn(64, 64) * 1e-3, "zero": torch.zeros(64, 64)}
    masks = select_masks(weights, sparsity, pattern, scope)
    units = 64 * 64 // unit
    assert sum(int((~m).sum()) for m in masks.values()) == round(sparsity * 3 * units) * unit
    for mask in masks.values():
        limit = max(sparsity, MAX_LAYER_SPARSITY)
        assert units - int(mask.sum()) // unit <= math.floor(limit * units) + 2
        assert mask.any()


def test_how_much_a_layer_may_lose_is_a_setting():
    weights = {"large": torch.ones(20, 20), "small": torch.full((20, 20), 1e-3)}
    for share, kept in ((1.0, 1), (0.75, 100), (0.5, 200)):
        masks = select_masks(weights, 0.5, "unstructured", "global", max_layer_sparsity=share)
        assert int(masks["small"].sum()) == kept and sum(int(m.sum()) for m in masks.values()) == 400
    with pytest.raises(InputError, match=r"max_layer_sparsity is 1\.5: it must be a share from 0 to 1"):
        select_masks(weights, 0.5, "unstructured", max_layer_sparsity=1.5)


@pytest.mark.parametrize("scope", ["global", "layer", "lamp", "normalized"])
def test_a_layer_keeps_its_last_unit(scope):
    masks = select_masks({"a": torch.ones(4, 8), "b": torch.ones(8, 8) * 9}, 0.66, "4x4", scope)
    assert all(mask.any() for mask in masks.values())


@pytest.mark.parametrize("scope", ["global", "lamp", "normalized"])
def test_what_the_sparsity_asks_for_is_removed_all_the_same(scope):
    masks = select_masks({str(i): torch.full((4, 4), float(i + 1)) for i in range(3)}, 0.67, "4x4", scope)
    assert [bool(mask.any()) for mask in masks.values()] == [False, False, True]


def test_n_of_m_is_the_same_in_every_scope():
    torch.manual_seed(0)
    weights = {"a": torch.randn(8, 16), "b": torch.randn(8, 16) * 10}
    found = [select_masks(weights, 0.5, "2:4", scope) for scope in ("global", "layer", "lamp", "normalized", "auto")]
    for masks in found:
        assert all(torch.equal(masks[name], found[0][name]) for name in weights)


@pytest.mark.parametrize(
    "pattern,scope",
    [("4x4", "lamp"), ("64x64", "lamp"), ("1x4", "lamp"), ("unstructured", "global"), ("2:4", "global")],
)
def test_the_scope_that_is_chosen(pattern, scope):
    assert scope_for("auto", pattern) == scope
    torch.manual_seed(0)
    weights = {"a": torch.randn(64, 128), "b": torch.randn(64, 128) * 3}
    auto, chosen = (select_masks(weights, 0.4, pattern, s) for s in ("auto", scope))
    assert all(torch.equal(auto[name], chosen[name]) for name in weights)
    assert all(scope_for(given, pattern) == given for given in ("global", "layer", "lamp", "normalized"))


@pytest.mark.parametrize("scope", ["global", "layer", "lamp", "normalized"])
def test_a_tied_weight_counts_once(scope):
    torch.manual_seed(0)
    shared, other = torch.randn(8, 8), torch.randn(8, 8) * 2
    alone = select_masks({"a": shared, "b": other}, 0.5, "4x4", scope)
    twice = select_masks({"a": shared, "b": other, "c": shared}, 0.5, "4x4", scope)
    assert twice["a"] is twice["c"] and all(torch.equal(alone[name], twice[name]) for name in "ab")


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_goes_last(bad):
    torch.manual_seed(0)
    weights = {"a": torch.randn(8, 8), "b": torch.randn(8, 8)}
    weights["b"][0, 0] = bad
    for scope in ("global", "layer", "lamp", "normalized"):
        masks = select_masks(weights, 0.9, "unstructured", scope)
        assert masks["b"][0, 0] and sum(int((~m).sum()) for m in masks.values()) == pytest.approx(115, abs=1)


def test_convert_takes_the_scopes():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(32, 32), torch.nn.Linear(32, 32))
    with torch.no_grad():
        model[0].weight.mul_(0.01)
    convert(model, sparsity=0.5, pattern="4x4", max_layer_sparsity=0.75)
    sparsities = [1 - layer.mask.float().mean().item() for layer in model]
    assert sum(sparsities) == 1 and max(sparsities) <= 0.75 and sparsities[0] == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("scope", ["auto", "global", "layer", "lamp", "normalized"])
def test_weights_without_values_have_masks_without_values(scope):
    masks = select_masks({"a": torch.empty(8, 8, device="meta")}, 0.5, "4x4", scope)
    assert masks["a"].is_meta and masks["a"].shape == (8, 8) and masks["a"].dtype == torch.bool
