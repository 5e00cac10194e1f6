"""How a stored weight is multiplied on a GPU: by its own op, or expanded to int8 by `int8_linear`."""

from collections.abc import Callable

from torch import Tensor

from .formats import BlockSparseWeight, WeightFormat

# Where the op that multiplies by the stored weight was faster than `int8_linear` by the expanded one, on an H100
# (docs/results/gpu.md): blocks of this side or larger, of which no more than this share is kept, from so many rows of
# x on. Bitmasks and 2:4 were slower for any number of rows.
LEAST_SIDE, MOST_KEPT, LEAST_ROWS = 64, 0.25, 4096


def is_faster(weight: WeightFormat) -> bool:
    """Whether multiplying by the weight as it is stored is faster, from `LEAST_ROWS` rows of x on."""
    if not isinstance(weight, BlockSparseWeight) or min(weight.block) < LEAST_SIDE:
        return False
    return weight.kept() <= MOST_KEPT * weight.shape[0] * weight.shape[1]


def operands(weight: WeightFormat) -> tuple[Callable[..., Tensor], tuple[Tensor, ...]] | None:
    """(the op, its arguments between x and the weight's scale); None for a weight that must be expanded.

    That is a dense one, one of other than 8 bits, or one in blocks whose sides are not among
    `ops.block_sparse_int8_linear.SIDES`.
    """
    found = weight.operands()
    return None if found is None else (found.op, tuple(operand.tensor for operand in found.tensors))
