"""The index of a mask's blocks against the mask itself."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseq_kernels.block_index import BLOCK, BlockIndex, layout
from sparseq_kernels.numerics import unpack_mask


def block_mask(N, K, density, seed):
    """A mask of whole blocks, each kept with probability `density`."""
    generator = torch.Generator().manual_seed(seed)
    keep = torch.rand(-(-N // BLOCK), -(-K // BLOCK), generator=generator) < density
    return keep.repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)[:N, :K].contiguous()


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([0, 1, 5, 7, 63, 64, 65, 577]),
    st.sampled_from([0, 1, 5, 7, 63, 64, 65, 577]),
    st.floats(0, 1),
    st.booleans(),
    st.integers(0, 99),
)
def test_the_index_names_the_blocks_that_keep_anything(N, K, density, thin, seed):
    mask = block_mask(N, K, density, seed)
    if thin:
        mask &= torch.rand(N, K, generator=torch.Generator().manual_seed(seed)) < 1e-3
    index = BlockIndex.from_mask(mask)
    full = {
        (n, k)
        for n in range(-(-N // BLOCK))
        for k in range(-(-K // BLOCK))
        if mask[n * BLOCK : (n + 1) * BLOCK, k * BLOCK : (k + 1) * BLOCK].any()
    }
    Nb, Kb = index.rows.shape
    assert [row[:count] for row, count in zip(index.rows.tolist(), index.row_counts.tolist(), strict=True)] == [
        sorted(k for n, k in full if n == row) for row in range(Nb)
    ]
    assert [row[:count] for row, count in zip(index.columns.tolist(), index.column_counts.tolist(), strict=True)] == [
        sorted(n for n, k in full if k == column) for column in range(Kb)
    ]
    assert index.kept.tolist()[: int(index.count)] == sorted(n * Kb + k for n, k in full)
    assert sorted(index.kept.tolist()) == list(range(Nb * Kb))
    assert int(index.count) == len(full) and index.density == len(full) / max(1, Nb * Kb)
    assert torch.equal(unpack_mask(index.bits, K), mask)
    for tensor, (shape, dtype) in zip(index.tensors(), layout(N, K).values(), strict=True):
        assert tensor.shape == shape and tensor.dtype == dtype and tensor.is_contiguous()


@pytest.mark.parametrize("density", [0.0, 1.0])
def test_density_at_its_ends(density):
    assert BlockIndex.from_mask(torch.full((130, 70), bool(density))).density == density


def test_a_strided_mask():
    mask = block_mask(130, 200, 0.5, 0)
    found, expected = (BlockIndex.from_mask(m).tensors() for m in (mask.t().contiguous().t(), mask))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
