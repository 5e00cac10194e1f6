"""Which tile of a product a program computes, and where the rows of its operands are."""

import triton
import triton.language as tl


@triton.jit
def tile_place(tile, tiles_m, tiles_n, GROUP_M: tl.constexpr):
    """(row, column) of a tile by its number, in an order in which GROUP_M rows of tiles run together."""
    in_group = GROUP_M * tiles_n
    first = tile // in_group * GROUP_M
    rows = tl.minimum(tiles_m - first, GROUP_M)
    return first + tile % in_group % rows, tile % in_group // rows


@triton.jit
def place(index, count, BLOCK: tl.constexpr, RUN: tl.constexpr = 1):
    """(the rows of a block, the same with row 0 for those beyond the last, which are read and not stored).

    RUN: how many of the rows that are read lie side by side in memory. It must divide `count`, or reads pass the end.
    """
    rows = index * BLOCK + tl.arange(0, BLOCK)
    read = tl.where(rows < count, rows, 0)
    if RUN > 1:
        read = tl.max_contiguous(tl.multiple_of(read, RUN), RUN)
    return rows, read
