"""The lists of a mask's tiles against the mask itself."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseq_kernels.numerics import unpack_mask
from sparseq_kernels.tiles import TILE, TileLists, layout


def blocks(N, K, density, seed):
    """A mask of whole tiles, each kept with probability `density`."""
    generator = torch.Generator().manual_seed(seed)
    keep = torch.rand(-(-N // TILE), -(-K // TILE), generator=generator) < density
    return keep.repeat_interleave(TILE, 0).repeat_interleave(TILE, 1)[:N, :K].contiguous()


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([0, 1, 5, 7, 63, 64, 65, 577]),
    st.sampled_from([0, 1, 5, 7, 63, 64, 65, 577]),
    st.floats(0, 1),
    st.booleans(),
    st.integers(0, 99),
)
def test_lists_name_the_tiles_that_keep_anything(N, K, density, thin, seed):
    mask = blocks(N, K, density, seed)
    if thin:
        mask &= torch.rand(N, K, generator=torch.Generator().manual_seed(seed)) < 1e-3
    lists = TileLists.from_mask(mask)
    full = {
        (n, k)
        for n in range(-(-N // TILE))
        for k in range(-(-K // TILE))
        if mask[n * TILE : (n + 1) * TILE, k * TILE : (k + 1) * TILE].any()
    }
    Nt, Kt = lists.rows.shape
    assert [row[:count] for row, count in zip(lists.rows.tolist(), lists.row_counts.tolist(), strict=True)] == [
        sorted(k for n, k in full if n == row) for row in range(Nt)
    ]
    assert [row[:count] for row, count in zip(lists.columns.tolist(), lists.column_counts.tolist(), strict=True)] == [
        sorted(n for n, k in full if k == column) for column in range(Kt)
    ]
    assert lists.kept.tolist()[: int(lists.count)] == sorted(n * Kt + k for n, k in full)
    assert sorted(lists.kept.tolist()) == list(range(Nt * Kt))
    assert int(lists.count) == len(full) and lists.density == len(full) / max(1, Nt * Kt)
    assert torch.equal(unpack_mask(lists.bits, K), mask)
    for tensor, (shape, dtype) in zip(lists.tensors(), layout(N, K).values(), strict=True):
        assert tensor.shape == shape and tensor.dtype == dtype and tensor.is_contiguous()


@pytest.mark.parametrize("density", [0.0, 1.0])
def test_density_at_its_ends(density):
    assert TileLists.from_mask(torch.full((130, 70), bool(density))).density == density


def test_a_strided_mask():
    mask = blocks(130, 200, 0.5, 0)
    found, expected = (TileLists.from_mask(m).tensors() for m in (mask.t().contiguous().t(), mask))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
