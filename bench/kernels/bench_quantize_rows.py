from collections.abc import Mapping

import torch

from bench.check import require_close, require_equal
from bench.clock import Call
from bench.kernels import peers
from bench.kernels.cases import OURS, WIDTHS, Trial, width_case
from bench.kernels.conftest import Compare
from bench.roofline import work
from bench.target import Target
from sparseq_kernels import use_backend

OP = torch.ops.sparseq.quantize_rows


def make_trial(target: Target, M: int, width: int) -> Trial:
    x = torch.randn(M, width, device=target.device, dtype=target.dtype)
    candidates = {OURS: lambda: OP(x), "torch, op by op": lambda: peers.eager_quantize_rows(x)}

    def check(present: Mapping[str, Call]) -> None:
        with use_backend("reference"):
            expected = OP(x)
        for name, run in present.items():
            levels, scales = run()
            if name == OURS:
                require_equal("quantize_rows, integers", levels, expected[0])
                require_equal("quantize_rows, scales", scales, expected[1])
            else:
                require_close(name, levels.float(), expected[0].float(), 1e-2)

    trial = Trial(dict(candidates), check)
    if target.gpu:
        compiled = peers.compiled(peers.eager_quantize_rows, target)
        trial.add("torch, compiled", lambda: compiled(x), peers.why_not_compiled(WIDTHS[width], M, target))
    return trial


def test_quantize_rows(compare: Compare, target: Target, width: int, M: int) -> None:
    least = work([(M * width, target.dtype), (M * width, torch.int8), (M, torch.float32)])
    compare(width_case(width, M, "forward"), lambda: make_trial(target, M, width), least)
