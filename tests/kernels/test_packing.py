"""Bits, nibbles and the dense matrices of packed ones, against plain loops."""

import pytest
import torch

from sparseq_kernels.numerics import (
    CHUNK,
    chunk_offsets,
    from_bitmask,
    from_blocks,
    from_pairs,
    pack_int4,
    pack_mask,
    unpack_int4,
    unpack_mask,
    unpack_nibbles,
)


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 577])
def test_bits_and_nibbles(count):
    flags = torch.rand(count) > 0.5
    assert pack_mask(flags).numel() == -(-count // 8)
    assert torch.equal(unpack_mask(pack_mask(flags), count), flags)
    values = torch.randint(-8, 8, (3, count), dtype=torch.int8)
    assert torch.equal(unpack_int4(pack_int4(values), count), values)


def test_bits_of_rows():
    mask = torch.tensor([[True, False, False, True, *[False] * 5], [*[False] * 8, True]])
    assert pack_mask(mask).tolist() == [[9, 0], [0, 1]]
    for shape in [(3, 0), (0, 5), (2, 8), (2, 3, 17)]:
        flags = torch.rand(shape) > 0.5
        assert torch.equal(unpack_mask(pack_mask(flags), shape[-1]), flags)


def test_the_lower_nibble_comes_first():
    assert unpack_nibbles(torch.tensor([[0x21, 0x43]], dtype=torch.uint8)).tolist() == [[1, 2, 3, 4]]
    assert pack_int4(torch.tensor([1, -1, -8], dtype=torch.int8)).tolist() == [0xF1, 0x08]


def test_blocks_by_row_of_blocks():
    values = torch.arange(12, dtype=torch.int8).reshape(3, 2, 2)
    columns, offsets = (torch.tensor(numbers, dtype=torch.int32) for numbers in ([1, 0, 1], [0, 1, 1, 3]))
    assert from_blocks(values, columns, offsets, 4).tolist() == [
        [0, 0, 0, 1],
        [0, 0, 2, 3],
        [0, 0, 0, 0],
        [0, 0, 0, 0],
        [4, 5, 8, 9],
        [6, 7, 10, 11],
    ]


@pytest.mark.parametrize("columns", [5, 8, CHUNK - 1, CHUNK, 2 * CHUNK + 3])
def test_a_bitmask_and_where_its_chunks_begin(columns):
    dense = torch.randint(0, 3, (4, columns), dtype=torch.int8)
    kept = dense != 0
    assert torch.equal(from_bitmask(dense[kept], pack_mask(kept), columns), dense)
    offsets = chunk_offsets(kept)
    assert offsets.dtype == torch.int32 and offsets.shape == (4, -(-columns // CHUNK))
    for row, begins in enumerate(offsets.tolist()):
        for chunk, begin in enumerate(begins):
            assert begin == kept[:row].sum() + kept[row, : chunk * CHUNK].sum()


def test_pairs_stand_where_their_indices_say():
    values = torch.tensor([[1, 2, 3, 4, 5, 6]], dtype=torch.int8)
    indices = torch.tensor([[0b1110_0100, 0b1100]], dtype=torch.uint8)  # (0, 1), (2, 3) and (0, 3)
    assert from_pairs(values, indices).tolist() == [[1, 2, 0, 0, 0, 0, 3, 4, 5, 0, 0, 6]]
