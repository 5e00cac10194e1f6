import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseq_kernels import InputError, formats
from sparseq_kernels.formats import BlockBitmapWeight, DenseWeight, SemiStructuredWeight, smallest, stored_bytes


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 5),
    st.integers(0, 5),
    st.sampled_from([(1, 1), (4, 4), (2, 3)]),
    st.sampled_from([4, 8, 16, 32]),
    st.floats(0, 1),
    st.integers(0, 99),
)
def test_round_trip(a, b, block, bits, density, seed):
    generator = torch.Generator().manual_seed(seed)
    shape = (a * block[0], b * block[1])
    limit = 2 ** (min(bits, 16) - 1) - 1
    dtype = {4: torch.int8, 8: torch.int8, 16: torch.int16, 32: torch.float32}[bits]
    levels = torch.randint(-limit, limit + 1, shape, generator=generator).to(dtype)
    mask = torch.rand(a, b, generator=generator) < density
    mask = mask.repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)
    sparse = BlockBitmapWeight.from_dense(levels * mask, mask, block, bits)
    sparse.validate()
    assert torch.equal(sparse.to_dense(), levels * mask) and sparse.kept() == int(mask.sum())
    dense = DenseWeight.from_dense(levels * mask, bits, mask)
    assert torch.equal(dense.to_dense(), levels * mask) and dense.kept() == int(mask.sum())
    for weight in (dense, sparse):
        empty = formats.empty_weight(weight.layout(), dtype)
        assert {k: (t.shape, t.dtype) for k, t in empty.tensors().items()} == {
            k: (t.shape, t.dtype) for k, t in weight.tensors().items()
        }


def test_bits_a_weight_are_what_the_layout_promises():
    levels, mask = torch.ones(64, 64, dtype=torch.int8), torch.zeros(64, 64, dtype=torch.bool)
    mask.view(-1)[: 64 * 64 * 2 // 5] = True
    bits = 8 * formats.stored_bytes(BlockBitmapWeight.from_dense(levels * mask, mask, (1, 1), 8)) / levels.numel()
    assert bits == pytest.approx(1 + 8 * 0.4, abs=0.01)


def test_the_smallest_format_is_chosen():
    levels = torch.ones(64, 64, dtype=torch.int8)
    blocks = (torch.rand(16, 16) > 0.6).repeat_interleave(4, 0).repeat_interleave(4, 1)
    scattered = torch.rand(64, 64) > 0.6
    nearly_dense = torch.rand(64, 64) > 0.02
    assert formats.smallest(levels, None, (4, 4), 8).name == "dense"
    assert formats.smallest(levels * blocks, blocks, (4, 4), 8).name == "block_sparse"
    assert formats.smallest(levels * scattered, scattered, (1, 1), 8).name == "bitmask"
    assert formats.smallest(levels * nearly_dense, nearly_dense, (1, 1), 8).name == "dense"


def test_a_bitmap_that_disagrees_is_refused():
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[:4, :4] = True
    weight = BlockBitmapWeight.from_dense(mask.to(torch.int8), mask, (4, 4), 8)
    for wrong in (0, 0b11, 0b10000001):
        bad = dataclasses.replace(weight, bitmap=torch.tensor([wrong], dtype=torch.uint8))
        with pytest.raises(InputError, match="bitmap marks"):
            bad.validate()


def two_of_four(rows, columns, kept=2):
    order = torch.rand(rows, columns // 4, 4, generator=torch.Generator().manual_seed(0)).argsort(-1)
    return (order < kept).flatten(1)


@pytest.mark.parametrize("kept", [0, 1, 2])
@pytest.mark.parametrize("columns", [4, 8, 12, 64])
def test_two_of_four_comes_back(columns, kept):
    levels, mask = torch.randint(-127, 128, (5, columns), dtype=torch.int8), two_of_four(5, columns, kept)
    weight = SemiStructuredWeight.from_dense(levels, mask)
    assert torch.equal(weight.to_dense(), levels * mask) and weight.kept() == int(mask.sum())
    weight.validate()
    again = formats.empty_weight(weight.layout(), torch.float32)
    assert {name: (t.shape, t.dtype) for name, t in again.tensors().items()} == {
        name: (t.shape, t.dtype) for name, t in weight.tensors().items()
    }


def test_two_of_four_takes_five_bits_a_weight():
    weight = SemiStructuredWeight.from_dense(torch.ones(16, 64, dtype=torch.int8), two_of_four(16, 64))
    assert stored_bytes(weight) == 16 * 64 * 5 // 8


def test_what_two_of_four_cannot_hold():
    with pytest.raises(InputError, match="holds at most two of every four columns, and the mask keeps more"):
        SemiStructuredWeight.from_dense(torch.ones(2, 8, dtype=torch.int8), torch.ones(2, 8, dtype=torch.bool))
    with pytest.raises(InputError, match="needs a multiple of 4 columns, not 6"):
        SemiStructuredWeight.from_dense(torch.ones(2, 6, dtype=torch.int8), torch.zeros(2, 6, dtype=torch.bool))


def test_places_out_of_order_are_refused():
    weight = SemiStructuredWeight.from_dense(torch.ones(2, 12, dtype=torch.int8), two_of_four(2, 12))
    weight.indices[1, 0] = 0
    with pytest.raises(InputError, match="inconsistent: in 2 of its fours of columns the second value does not"):
        weight.validate()


def test_the_smallest_of_two_of_four_is_its_own_format():
    levels = torch.randint(-127, 128, (8, 64), dtype=torch.int8)
    assert smallest(levels, two_of_four(8, 64), (1, 1), 8).name == "semi_structured"
    assert smallest(levels.to(torch.int16), two_of_four(8, 64), (1, 1), 16).name == "bitmask"
