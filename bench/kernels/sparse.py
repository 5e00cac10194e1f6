"""What the benchmarks of sparse int8 products share: the weight, dense and as stored, and what it is compared with."""

from collections.abc import Mapping, Sequence

import pytest
import torch
from torch import Tensor

from bench.check import require_close, require_equal
from bench.clock import Call
from bench.kernels import peers
from bench.kernels.cases import OURS, Trial, layer_case
from bench.kernels.conftest import Compare
from bench.roofline import Work, work
from bench.target import Target
from sparseq_kernels.formats import WeightFormat, format_named, stored_bytes
from sparseq_kernels.patterns import Pattern
from sparseq_kernels.reference.magnitude_mask import magnitude_mask
from sparseq_kernels.reference.quantize_rows import quantize_rows
from sparseq_kernels.sparse_dispatch import operands

DENSE, BF16 = "dense int8_linear", "bf16 nn.Linear"
A_GPUS = "on a CPU a sparse weight is expanded when it is loaded"
CUSPARSELT = "cuSPARSELt 2:4, the product alone"


def stored(levels: Tensor, pattern: str, sparsity: float) -> tuple[WeightFormat, Tensor]:
    """(`levels` int8 [N, K] pruned by magnitude, as stored, and dense)."""
    [mask] = magnitude_mask([levels.float()], sparsity, pattern)
    dense, parsed = levels * mask, Pattern.parse(pattern)
    format = {"n:m": "semi_structured", "block": "block_sparse", "unstructured": "bitmask"}[parsed.kind]
    return format_named(format).from_dense(dense, 8, mask, parsed.block), dense


def make_trial(target: Target, M: int, outputs: int, inputs: int, pattern: str, sparsity: float) -> Trial:
    """x comes as int8, for every kernel of integers alike."""
    x = torch.randn(M, inputs, device=target.device)
    levels, rows = quantize_rows(x, 8)
    weight, scale = quantize_rows(torch.randn(outputs, inputs, device=target.device), 8)
    packed, dense = stored(weight, pattern, sparsity)
    found = operands(packed)
    assert found is not None
    op, tensors = getattr(torch.ops.sparseq, found[0]), found[1]
    bias = torch.randn(outputs, device=target.device)
    floats = [t.to(target.dtype) for t in (x, dense * scale.unsqueeze(-1), bias)]
    dense_op = torch.ops.sparseq.int8_linear
    trial = Trial(
        {
            OURS: lambda: op(levels, *tensors, scale, bias, rows, "none", target.dtype),
            DENSE: lambda: dense_op(levels, dense, scale, bias, rows, "none", target.dtype),
            BF16: lambda: peers.linear(*floats, "none"),
        },
        lambda present: check(present),
    )
    if packed.name == "semi_structured" and target.kind == "cuda":
        try:
            compressed = torch._cslt_compress(dense)
            trial.add(CUSPARSELT, lambda: torch._cslt_sparse_mm(compressed, levels.t(), out_dtype=torch.int32))
        except (RuntimeError, AttributeError) as error:
            trial.add(CUSPARSELT, lambda: None, f"torch has none here: {error}".splitlines()[0][:120])

    def check(present: Mapping[str, Call]) -> None:
        expected = present[DENSE]()
        require_equal(OURS, present[OURS](), expected)
        require_close(BF16, present[BF16](), expected, 3e-2)

    return trial


def least(target: Target, M: int, outputs: int, inputs: int, pattern: str, sparsity: float) -> Work:
    """The bytes of the weight as stored, and the multiplications by what is kept."""
    kept = round((1 - sparsity) * outputs * inputs)
    with torch.device("cpu"):
        size = stored_bytes(stored(torch.ones(64, 64, dtype=torch.int8), pattern, sparsity)[0]) / 64**2
    x, y = (M * inputs, torch.int8), (M * outputs, target.dtype)
    return work(
        [x, (round(size * outputs * inputs), torch.int8), (2 * outputs, torch.float32), y], (torch.int8, M * kept)
    )


def run(
    compare: Compare,
    target: Target,
    outputs: int,
    inputs: int,
    M: int,
    pattern: str,
    sparsity: float,
    timed: Sequence[int],
) -> None:
    """A case of a benchmark that times so many rows alone."""
    if not target.gpu:
        pytest.skip(A_GPUS)
    if not target.smallest and M not in timed:
        pytest.skip(f"timed at {', '.join(map(str, timed))} rows")
    case = layer_case(outputs, inputs, M, "forward") | {"sparsity": sparsity}
    case["layer"] += f", {pattern} {sparsity:.0%}"
    sizes = (target, M, outputs, inputs, pattern, sparsity)
    with torch.inference_mode():
        compare(case, lambda: make_trial(*sizes), least(*sizes))
