"""By which op a stored weight is multiplied."""

import pytest
import torch

from sparseq_kernels import block_sparse_int8_linear
from sparseq_kernels.formats import BitmaskWeight, BlockSparseWeight, DenseWeight, SemiStructuredWeight
from sparseq_kernels.sparse_dispatch import is_faster, operands


def block_sparse(side, kept, blocks=4, bits=8):
    """A weight of blocks x blocks blocks, of which the first `kept` are kept."""
    keep = (torch.arange(blocks * blocks) < kept).reshape(blocks, blocks)
    mask = keep.repeat_interleave(side, 0).repeat_interleave(side, 1)
    return BlockSparseWeight.from_dense(mask.to(torch.int8 if bits == 8 else torch.int16), bits, mask, (side, side))


@pytest.mark.parametrize(("side", "kept", "faster"), [(64, 4, True), (128, 1, True), (64, 5, False), (32, 1, False)])
def test_large_and_few_blocks_are_faster_than_the_expanded_weight(side, kept, faster):
    assert is_faster(block_sparse(side, kept)) == faster


def test_other_formats_are_not_faster():
    mask = torch.zeros(128, 128, dtype=torch.bool)
    values = mask.to(torch.int8)
    for cls in (DenseWeight, BitmaskWeight, SemiStructuredWeight):
        assert not is_faster(cls.from_dense(values, 8, mask))


def test_operands_are_the_op_and_its_tensors():
    weight = block_sparse(16, 3)
    op, (values, columns, offsets, order) = operands(weight)
    assert op is block_sparse_int8_linear and values.shape == (3, 16, 16)
    assert columns.tolist() == [0, 1, 2] and offsets.tolist() == [0, 3, 3, 3, 3] and order.tolist() == [0, 1, 2, 3]
    assert operands(block_sparse(16, 3, bits=16)) is None
