import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseq_kernels import InputError

MASK = torch.ops.sparseq.magnitude_mask


def by_sorting(weights, sparsity, block):
    """The definition, slowly: all units of all weights sorted by (mean magnitude, index), the first ones dropped."""
    r, c = block
    units = []
    for i, w in enumerate(weights):
        for a in range(0, w.shape[0], r):
            for b in range(0, w.shape[1], c):
                units.append((float(w[a : a + r, b : b + c].abs().float().mean()), len(units), i, a, b))
    masks = [torch.ones(w.shape, dtype=torch.bool) for w in weights]
    for _, _, i, a, b in sorted(units)[: round(sparsity * len(units))]:
        masks[i][a : a + r, b : b + c] = False
    return masks


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=3),
    st.sampled_from([(1, 1), (2, 2), (1, 4), (4, 1)]),
    st.floats(0, 0.99),
    st.booleans(),
    st.integers(0, 999),
)
def test_exact_count_and_ties_by_index(grids, block, sparsity, with_ties, seed):
    generator = torch.Generator().manual_seed(seed)
    weights = [torch.randn(a * block[0], b * block[1], generator=generator) for a, b in grids]
    if with_ties:
        weights = [w.round() for w in weights]
    pattern = "unstructured" if block == (1, 1) else f"{block[0]}x{block[1]}"
    for got, want in zip(MASK(weights, sparsity, pattern), by_sorting(weights, sparsity, block), strict=True):
        assert torch.equal(got, want)


@pytest.mark.parametrize("pattern,n,m", [("2:4", 2, 4), ("1:4", 1, 4), ("4:8", 4, 8)])
def test_n_of_m_keeps_the_n_largest_of_every_group(pattern, n, m):
    w = torch.randn(6, 32)
    (mask,) = MASK([w], 1 - n / m, pattern)
    groups, kept = w.abs().reshape(-1, m), mask.reshape(-1, m)
    assert kept.sum(1).eq(n).all()
    assert torch.where(kept, groups, np.inf).amin(1).ge(torch.where(kept, -np.inf, groups).amax(1)).all()


def test_n_of_m_rises_group_by_group():
    w = torch.randn(8, 32)
    (half,) = MASK([w], 0.25, "2:4")
    kept = half.reshape(-1, 4).sum(1)
    assert set(kept.tolist()) == {2, 4} and (~half).float().mean() == 0.25


def test_equal_weights_lose_the_lower_index_first():
    (mask,) = MASK([torch.ones(2, 4)], 0.5, "unstructured")
    assert mask.tolist() == [[False] * 4, [True] * 4]


@pytest.mark.parametrize("sparsity", [0.2, 0.5, 0.8])
def test_nan_ranks_above_infinity_and_the_count_is_exact(sparsity):
    weight = torch.tensor([[np.nan, 1.0, -np.inf, np.nan, 0.0, -np.nan, np.inf, 2.0, np.nan, 3.0]])
    order = [4, 1, 7, 9, 2, 6, 0, 3, 5, 8]
    (mask,) = MASK([weight], sparsity, "unstructured")
    assert sorted((~mask).nonzero()[:, 1].tolist()) == sorted(order[: round(10 * sparsity)])


def test_a_block_is_summed_by_rows_in_fp32():
    # 1 + 2^-24 + 2^-24 is 1 from the left and 1 + 2^-23 from the right.
    small = 2.0**-24
    left, right = torch.tensor([[1.0, small, small, 0.0]]), torch.tensor([[small, small, 1.0, 0.0]])
    for weight, kept in [(torch.cat([right, left]), [True, False]), (torch.cat([left, right]), [False, True])]:
        (mask,) = MASK([weight], 0.5, "1x4")
        assert mask[:, 0].tolist() == kept


def test_deterministic():
    weights = [torch.randn(64, 64).round(decimals=1) for _ in range(3)]
    first = MASK(weights, 0.6, "4x4")
    assert all(torch.equal(a, b) for _ in range(3) for a, b in zip(first, MASK(weights, 0.6, "4x4"), strict=True))


@pytest.mark.parametrize(
    "sparsity,pattern,sentence",
    [
        (1.0, "unstructured", "sparsity must be at least 0 and below 1"),
        (-0.1, "unstructured", "sparsity must be at least 0 and below 1"),
        (0.6, "2:4", "sparsity is at most 0.5, not 0.6"),
        (0.5, "4x5", "does not divide layer"),
        (0.5, "4by4", "unknown sparsity pattern '4by4'"),
        (0.5, "4:2", "unknown sparsity pattern '4:2'"),
    ],
)
def test_bad_input(sparsity, pattern, sentence):
    with pytest.raises(InputError, match=sentence):
        MASK([torch.randn(8, 8)], sparsity, pattern)


def test_masks_do_not_share_memory():
    masks = MASK([torch.randn(8, 8), torch.randn(8, 8)], 0.5, "unstructured")
    assert all(m.untyped_storage().nbytes() == 64 for m in masks)
