"""block_sparse_int8_linear: an int8 product by a weight of which only non-empty blocks are stored.

On a CPU the op expands the weight in every call; a packed layer does so once, when it is loaded.
"""

from bench.kernels import sparse
from bench.kernels.cases import Case, Compare

# rows: the numbers that a GPU times.
BENCHMARK = sparse.benchmark(
    "block_sparse_int8_linear",
    "int8 product by a block-sparse weight as stored",
    "64x64",
    (0.5, 0.75, 0.9),
    rows=(8192, 1024, 16),
)


def test_block_sparse_int8_linear(compare: Compare, case: Case) -> None:
    compare(case)
