import pytest

from bench.kernels import sparse
from bench.kernels.conftest import Compare
from bench.target import Target

PATTERN, SPARSITIES = "unstructured", (0.6,)
# Numbers of rows that are timed.
ROWS = (16, 1, 1024)


@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_bitmask_int8_linear(
    compare: Compare, target: Target, outputs: int, inputs: int, M: int, sparsity: float
) -> None:
    sparse.run(compare, target, outputs, inputs, M, PATTERN, sparsity, ROWS)
