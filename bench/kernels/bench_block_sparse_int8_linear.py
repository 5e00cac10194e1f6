import pytest

from bench.kernels import sparse
from bench.kernels.conftest import Compare
from bench.target import Target

PATTERN, SPARSITIES = "64x64", (0.5, 0.75, 0.9)
# Numbers of rows that are timed.
ROWS = (8192, 1024, 16)


@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_block_sparse_int8_linear(
    compare: Compare, target: Target, outputs: int, inputs: int, M: int, sparsity: float
) -> None:
    if target.smallest and sparsity != SPARSITIES[0]:
        pytest.skip("the smallest cases have one sparsity")
    sparse.run(compare, target, outputs, inputs, M, PATTERN, sparsity, ROWS)
