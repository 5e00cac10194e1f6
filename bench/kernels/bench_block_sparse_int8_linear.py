import pytest
import torch

from bench.kernels import sparse
from bench.kernels.cases import layer_case
from bench.kernels.conftest import Compare
from bench.target import Target

PATTERN, SPARSITIES = "64x64", (0.5, 0.75, 0.9)
# Numbers of rows that are timed.
ROWS = (8192, 1024, 16)


@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_block_sparse_int8_linear(
    compare: Compare, target: Target, outputs: int, inputs: int, M: int, sparsity: float
) -> None:
    if not target.gpu:
        pytest.skip(sparse.A_GPUS)
    if not target.smallest and M not in ROWS:
        pytest.skip(f"timed at {', '.join(map(str, ROWS))} rows")
    case = layer_case(outputs, inputs, M, "forward")
    case["layer"] += f", {PATTERN} {sparsity:.0%}"
    case["sparsity"] = sparsity
    sizes = (target, M, outputs, inputs, PATTERN, sparsity)
    with torch.inference_mode():
        compare(case, lambda: sparse.make_trial(*sizes), sparse.least(*sizes))
