import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseq_kernels import InputError, formats
from sparseq_kernels.formats import (
    BitmaskWeight,
    BlockSparseWeight,
    DenseWeight,
    SemiStructuredWeight,
    smallest,
    stored_bytes,
)


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
    values = torch.randint(-limit, limit + 1, shape, generator=generator).to(dtype)
    mask = torch.rand(a, b, generator=generator) < density
    mask = mask.repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)
    format = BitmaskWeight if block == (1, 1) else BlockSparseWeight
    sparse = format.from_dense(values * mask, bits, mask, block)
    sparse.validate()
    assert torch.equal(sparse.to_dense(), values * mask) and sparse.kept() == int(mask.sum())
    dense = DenseWeight.from_dense(values * mask, bits, mask)
    assert torch.equal(dense.to_dense(), values * mask) and dense.kept() == int(mask.sum())
    for weight in (dense, sparse):
        empty = formats.empty_weight(weight.layout(), dtype)
        assert {k: (t.shape, t.dtype) for k, t in empty.tensors().items()} == {
            k: (t.shape, t.dtype) for k, t in weight.tensors().items()
        }


def test_bits_a_weight_are_what_the_layout_promises():
    values, mask = torch.ones(64, 64, dtype=torch.int8), torch.zeros(64, 64, dtype=torch.bool)
    mask.view(-1)[: 64 * 64 * 2 // 5] = True
    bits = 8 * formats.stored_bytes(BitmaskWeight.from_dense(values * mask, 8, mask)) / values.numel()
    assert bits == pytest.approx(1 + 8 * 0.4, abs=0.01)


def test_the_smallest_format_is_chosen():
    values = torch.ones(64, 64, dtype=torch.int8)
    blocks = (torch.rand(16, 16) > 0.6).repeat_interleave(4, 0).repeat_interleave(4, 1)
    scattered = torch.rand(64, 64) > 0.6
    nearly_dense = torch.rand(64, 64) > 0.02
    assert formats.smallest(values, None, (4, 4), 8).name == "dense"
    assert formats.smallest(values * blocks, blocks, (4, 4), 8).name == "block_sparse"
    assert formats.smallest(values * scattered, scattered, (1, 1), 8).name == "bitmask"
    assert formats.smallest(values * nearly_dense, nearly_dense, (1, 1), 8).name == "dense"


def test_a_bitmap_that_disagrees_is_refused():
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[:4, :4] = True
    weight = BlockSparseWeight.from_dense(mask.to(torch.int8), 8, mask, (4, 4))
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
    values, mask = torch.randint(-127, 128, (5, columns), dtype=torch.int8), two_of_four(5, columns, kept)
    weight = SemiStructuredWeight.from_dense(values, 8, mask)
    assert torch.equal(weight.to_dense(), values * mask) and weight.kept() == int(mask.sum())
    weight.validate()
    again = formats.empty_weight(weight.layout(), torch.float32)
    assert {name: (t.shape, t.dtype) for name, t in again.tensors().items()} == {
        name: (t.shape, t.dtype) for name, t in weight.tensors().items()
    }


def test_two_of_four_takes_five_bits_a_weight():
    weight = SemiStructuredWeight.from_dense(torch.ones(16, 64, dtype=torch.int8), 8, two_of_four(16, 64))
    assert stored_bytes(weight) == 16 * 64 * 5 // 8


def test_what_two_of_four_cannot_hold():
    with pytest.raises(InputError, match="holds at most two of every four columns, and the mask keeps more"):
        SemiStructuredWeight.from_dense(torch.ones(2, 8, dtype=torch.int8), 8, torch.ones(2, 8, dtype=torch.bool))
    with pytest.raises(InputError, match="needs a multiple of 4 columns, not 6"):
        SemiStructuredWeight.from_dense(torch.ones(2, 6, dtype=torch.int8), 8, torch.zeros(2, 6, dtype=torch.bool))


def test_places_out_of_order_are_refused():
    weight = SemiStructuredWeight.from_dense(torch.ones(2, 12, dtype=torch.int8), 8, two_of_four(2, 12))
    weight.indices[1, 0] = 0
    with pytest.raises(InputError, match="inconsistent: in 2 groups of four columns the second value does not"):
        weight.validate()


def test_the_smallest_of_two_of_four_is_its_own_format():
    values = torch.randint(-127, 128, (8, 64), dtype=torch.int8)
    assert smallest(values, two_of_four(8, 64), (1, 1), 8).name == "semi_structured"
    assert smallest(values.to(torch.int16), two_of_four(8, 64), (1, 1), 16).name == "bitmask"


def weights_with_an_op():
    """Weights of every format that an int8 op multiplies by, with rows of whole bytes of a bitmap and without."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(-127, 128, (32, 64), dtype=torch.int8, generator=generator)
    scattered = torch.rand(32, 64, generator=generator) > 0.6
    blocks = torch.tensor([[True, False], [False, False]]).repeat_interleave(16, 0).repeat_interleave(32, 1)
    for mask in (scattered, scattered[:, :61], scattered & False):
        yield BitmaskWeight.from_dense(values[:, : mask.shape[1]] * mask, 8, mask)
    for mask in (blocks, blocks & False):
        yield BlockSparseWeight.from_dense(values * mask, 8, mask, (16, 32))
    for columns in (64, 60):
        mask = two_of_four(32, columns)
        yield SemiStructuredWeight.from_dense(values[:, :columns] * mask, 8, mask)


@pytest.mark.parametrize("weight", list(weights_with_an_op()), ids=lambda w: f"{w.name}-{w.shape[1]}-{w.kept()}")
def test_operands_are_what_the_op_expects_and_stand_for_the_weight(weight):
    found = weight.operands()
    tensors = tuple(operand.tensor for operand in found.tensors)
    rows, columns = weight.shape
    # The op validates them. With an identity of int8 for x it gives the weight's columns.
    y = found.op(torch.eye(columns, dtype=torch.int8), *tensors, torch.ones(rows), None, torch.ones(1))
    assert torch.equal(y.t(), weight.to_dense().float())
    for operand in found.tensors:
        if operand.stored is not None:  # A view of it, so that a layer holds the memory once.
            assert operand.tensor.data_ptr() == weight.tensors()[operand.stored].data_ptr()
    assert found.tensors[0].stored == "values"


def test_what_must_be_expanded_has_no_operands():
    values, mask = torch.ones(32, 64, dtype=torch.int8), torch.ones(32, 64, dtype=torch.bool)
    assert DenseWeight.from_dense(values, 8).operands() is None
    assert BlockSparseWeight.from_dense(values, 8, mask, (4, 4)).operands() is None
    for bits, dtype in ((4, torch.int8), (16, torch.int16), (32, torch.float32)):
        assert BitmaskWeight.from_dense(values.to(dtype), bits, mask).operands() is None
        assert BlockSparseWeight.from_dense(values.to(dtype), bits, mask, (16, 32)).operands() is None
