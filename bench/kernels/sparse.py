"""What the benchmarks of sparse int8 products share: the weight, dense and as stored, and what it is compared with."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from bench.check import require_close, require_equal
from bench.clock import Call
from bench.kernels import peers
from bench.kernels.cases import LAYERS, Benchmark, Case, Shape, Trial, layer_case
from bench.packages import CURRENT, Libraries, reference
from bench.roofline import Work, work
from bench.target import Target
from sparseq_kernels.formats import WeightFormat, format_named, stored_bytes
from sparseq_kernels.patterns import Pattern
from sparseq_kernels.sparse_dispatch import operands

DENSE = "dense int8_linear"
CUSPARSELT = "cuSPARSELt 2:4, the product alone"


def stored(values: Tensor, pattern: str, sparsity: float) -> tuple[WeightFormat, Tensor]:
    """(`values` int8 [N, K] pruned by magnitude, as stored, and dense)."""
    [mask] = reference("magnitude_mask", [values.float()], sparsity, pattern)
    dense, parsed = values * mask, Pattern.parse(pattern)
    format = {"n:m": "semi_structured", "block": "block_sparse", "unstructured": "bitmask"}[parsed.kind]
    return format_named(format).from_dense(dense, 8, mask, parsed.block), dense


def make_trial(
    target: Target, libraries: Libraries, M: int, outputs: int, inputs: int, pattern: str, sparsity: float
) -> Trial:
    """x comes as int8, for every kernel of integers alike."""
    x = torch.randn(M, inputs, device=target.device)
    values, rows = reference("quantize_rows", x)
    weight, scale = reference("quantize_rows", torch.randn(outputs, inputs, device=target.device))
    packed, dense = stored(weight, pattern, sparsity)
    found = operands(packed)
    assert found is not None
    op, tensors = found
    bias = torch.randn(outputs, device=target.device)
    floats = [t.to(target.dtype) for t in (x, dense * scale.unsqueeze(-1), bias)]
    rest = (scale, bias, rows, "none", target.dtype)
    plain = peers.LINEAR[target.dtype]

    def check(present: Mapping[str, Call]) -> None:
        expected = reference("int8_linear", values, dense, *rest)
        for name, run in present.items():
            if name in libraries or name == DENSE:
                require_close(name, run(), expected, 1e-6 if target.dtype == torch.float32 else 1e-2)
                require_equal(name, run(), present[DENSE]())
        if plain in present:
            require_close(plain, present[plain](), expected, 3e-2)

    trial = Trial(
        {name: library.bind(op.__name__, values, *tensors, *rest) for name, library in libraries.items()}, check
    )
    trial.add(DENSE, CURRENT.bind("int8_linear", values, dense, *rest))
    trial.add(plain, lambda: peers.linear(*floats, "none"))
    if packed.name == "semi_structured" and target.kind == "cuda":
        try:
            compressed = torch._cslt_compress(dense)
            trial.add(CUSPARSELT, lambda: torch._cslt_sparse_mm(compressed, values.t(), out_dtype=torch.int32))
        except (RuntimeError, AttributeError) as error:
            trial.add(CUSPARSELT, lambda: None, f"torch has none here: {error}".splitlines()[0][:120])
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


def benchmark(op: str, text: str, pattern: str, sparsities: Sequence[float], rows: Sequence[int]) -> Benchmark:
    """The benchmark of a sparse product with weights of that pattern. rows: the numbers that a GPU times."""

    def build(target: Target, M: int, inputs: int, outputs: int, sparsity: float) -> Case:
        described = layer_case(outputs, inputs, M, "forward") | {"sparsity": sparsity}
        described["layer"] += f", {pattern} {sparsity:.0%}"
        sizes = (M, outputs, inputs, pattern, sparsity)
        return Case(described, lambda libraries: make_trial(target, libraries, *sizes), least(target, *sizes))

    def variants(target: Target) -> list[dict[str, float]]:
        # A CPU is slower: the lowest and the highest are enough there.
        chosen = sparsities[:1] if target.smallest else sparsities if target.gpu else {sparsities[0], sparsities[-1]}
        return [{"sparsity": sparsity} for sparsity in sorted(chosen)]

    def timed(target: Target, shape: Shape) -> bool:
        return not target.gpu or shape[0] in rows

    return Benchmark(op, text, ("M", "K", "N"), LAYERS, build, variants, timed)
