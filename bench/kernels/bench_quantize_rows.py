"""quantize_rows: int8 values and a scale for each row."""

from collections.abc import Mapping

import torch

from bench.check import require_close, require_equal
from bench.clock import Call
from bench.kernels import peers
from bench.kernels.cases import WIDTHS, Benchmark, Case, Compare, Trial, width_case
from bench.packages import Libraries, reference
from bench.roofline import work
from bench.target import Target


def make_trial(target: Target, libraries: Libraries, M: int, width: int) -> Trial:
    x = torch.randn(M, width, device=target.device, dtype=target.dtype)

    def check(present: Mapping[str, Call]) -> None:
        values, scales = reference("quantize_rows", x)
        for name, run in present.items():
            found = run()
            if name in libraries:
                require_equal(f"{name}, integers", found[0], values)
                require_equal(f"{name}, scales", found[1], scales)
            else:
                require_close(name, found[0].float(), values.float(), 1e-2)

    trial = Trial({name: library.bind("quantize_rows", x) for name, library in libraries.items()}, check)
    trial.add(peers.OP_BY_OP, lambda: peers.eager_quantize_rows(x))
    if target.gpu:
        compiled = peers.compiled(peers.eager_quantize_rows, target)
        trial.add(peers.COMPILED, lambda: compiled(x), peers.why_not_compiled(WIDTHS.get(width, ()), M, target))
    return trial


def build(target: Target, M: int, width: int) -> Case:
    least = work([(M * width, target.dtype), (M * width, torch.int8), (M, torch.float32)])
    described = width_case(width, M, "forward")
    return Case(described, lambda libraries: make_trial(target, libraries, M, width), least)


BENCHMARK = Benchmark("quantize_rows", "rows to int8 with a scale each", ("M", "K"), WIDTHS, build)


def test_quantize_rows(compare: Compare, case: Case) -> None:
    compare(case)
