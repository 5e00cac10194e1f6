"""bitmask_int8_linear: an int8 product by a weight whose kept values are stored with one bit a weight.

On a CPU the op expands the weight in every call; a packed layer does so once, when it is loaded.
"""

from bench.kernels import sparse
from bench.kernels.cases import Case, Compare

# rows: the numbers that a GPU times.
BENCHMARK = sparse.benchmark(
    "bitmask_int8_linear",
    "int8 product by an unstructured sparse weight as stored",
    "unstructured",
    (0.6,),
    rows=(16, 1, 1024),
)


def test_bitmask_int8_linear(compare: Compare, case: Case) -> None:
    compare(case)
