"""semi_structured_int8_linear: an int8 product by a 2:4 sparse weight as stored.

On a CPU the op expands the weight in every call; a packed layer does so once, when it is loaded.
"""

from bench.kernels import sparse
from bench.kernels.cases import Case, Compare

# rows: the numbers that a GPU times.
BENCHMARK = sparse.benchmark(
    "semi_structured_int8_linear",
    "int8 product by a 2:4 sparse weight as stored",
    "2:4",
    (0.5,),
    rows=(16, 1, 1024, 8192),
)


def test_semi_structured_int8_linear(compare: Compare, case: Case) -> None:
    compare(case)
