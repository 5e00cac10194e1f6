"""gelu_quantize_rows: GELU, then int8 values and a scale for each row."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.check import require_close
from bench.clock import Call
from bench.kernels import peers
from bench.kernels.cases import WIDTHS, Benchmark, Case, Compare, Trial, width_case
from bench.packages import CURRENT, Libraries, reference
from bench.roofline import work
from bench.target import Target

TWO_OPS = "gelu, then quantize_rows"


def eager(x: Tensor) -> tuple[Tensor, Tensor]:
    return peers.eager_quantize_rows(F.gelu(x))


def make_trial(target: Target, libraries: Libraries, M: int, width: int) -> Trial:
    x = torch.randn(M, width, device=target.device, dtype=target.dtype)

    def check(present: Mapping[str, Call]) -> None:
        values, scales = reference("gelu_quantize_rows", x)
        for name, run in present.items():
            found, rows = run()
            # erf is rounded differently, which can turn a tie.
            require_close(f"{name}, integers", found.float(), values.float(), 1e-2)
            require_close(f"{name}, scales", rows, scales, 1e-5 if x.dtype == torch.float32 else 1e-2)

    trial = Trial({name: library.bind("gelu_quantize_rows", x) for name, library in libraries.items()}, check)
    quantize, rest = CURRENT.function("quantize_rows"), CURRENT.complete("quantize_rows", [x])[1:]
    trial.add(TWO_OPS, lambda: quantize(F.gelu(x), *rest))
    trial.add(peers.OP_BY_OP, lambda: eager(x))
    if target.gpu:
        compiled = peers.compiled(eager, target)
        trial.add(peers.COMPILED, lambda: compiled(x), peers.why_not_compiled(WIDTHS.get(width, ()), M, target))
    return trial


def build(target: Target, M: int, width: int) -> Case:
    least = work([(M * width, target.dtype), (M * width, torch.int8), (M, torch.float32)])
    described = width_case(width, M, "forward")
    return Case(described, lambda libraries: make_trial(target, libraries, M, width), least)


BENCHMARK = Benchmark("gelu_quantize_rows", "GELU, its rows to int8", ("M", "K"), WIDTHS, build)


def test_gelu_quantize_rows(compare: Compare, case: Case) -> None:
    compare(case)
