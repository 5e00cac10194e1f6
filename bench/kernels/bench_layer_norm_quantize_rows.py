"""layer_norm_quantize_rows: LayerNorm of a sum, then int8 values and a scale for each row."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.check import require_close
from bench.clock import Call
from bench.kernels import peers
from bench.kernels.cases import HIDDEN, Benchmark, Case, Compare, Trial, hidden_case
from bench.packages import CURRENT, Libraries, reference
from bench.roofline import work
from bench.target import Target

EPS = 1e-12
TWO_OPS = "layer_norm, then quantize_rows"


def norm(x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.layer_norm(x + residual, weight.shape, weight, bias, EPS)


def eager(x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    y = norm(x, residual, weight, bias)
    return *peers.eager_quantize_rows(y), y


def make_trial(target: Target, libraries: Libraries, M: int, hidden: int) -> Trial:
    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, device=target.device, dtype=target.dtype)

    operands = (draw(M, hidden), draw(M, hidden), draw(hidden), draw(hidden))
    exact = target.dtype == torch.float32
    quantize, rest = CURRENT.function("quantize_rows"), CURRENT.complete("quantize_rows", operands[:1])[1:]

    def two_ops() -> tuple[Tensor, Tensor, Tensor]:
        y = norm(*operands)
        return *quantize(y, *rest), y

    def check(present: Mapping[str, Call]) -> None:
        values, _, y = reference("layer_norm_quantize_rows", *operands, EPS)
        for name, run in present.items():
            found, _, output = run()
            # In bf16 the peers round the sum before they normalize it; a value rounded differently can turn a tie.
            require_close(f"{name}, output", output, y, 1e-5 if exact else 1e-2)
            require_close(f"{name}, integers", found.float(), values.float(), 1e-2 if exact else 2e-2)

    op = "layer_norm_quantize_rows"
    trial = Trial({name: library.bind(op, *operands, EPS) for name, library in libraries.items()}, check)
    trial.add(TWO_OPS, two_ops)
    trial.add(peers.OP_BY_OP, lambda: eager(*operands))
    if target.gpu:
        compiled = peers.compiled(eager, target)
        reason = peers.why_not_compiled(HIDDEN.get(hidden, ()), M, target)
        trial.add(peers.COMPILED, lambda: compiled(*operands), reason)
    return trial


def build(target: Target, M: int, hidden: int) -> Case:
    floats = (3 * M * hidden + 2 * hidden, target.dtype)
    least = work([floats, (M * hidden, torch.int8), (M, torch.float32)])
    described = hidden_case(hidden, str(hidden), "forward", M=M)
    return Case(described, lambda libraries: make_trial(target, libraries, M, hidden), least)


BENCHMARK = Benchmark(
    "layer_norm_quantize_rows", "LayerNorm with residual, its rows to int8", ("M", "K"), HIDDEN, build
)


def test_layer_norm_quantize_rows(compare: Compare, case: Case) -> None:
    compare(case)
