import pytest

from bench.kernels import sparse
from bench.kernels.conftest import Compare
from bench.target import Target

PATTERN, SPARSITIES = "2:4", (0.5,)
# Numbers of rows that are timed.
ROWS = (16, 1, 1024, 8192)


@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_semi_structured_int8_linear(
    compare: Compare, target: Target, outputs: int, inputs: int, M: int, sparsity: float
) -> None:
    sparse.run(compare, target, outputs, inputs, M, PATTERN, sparsity, ROWS)
