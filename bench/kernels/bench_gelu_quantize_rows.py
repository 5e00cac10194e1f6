from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.check import require_close
from bench.clock import Call
from bench.kernels import peers
from bench.kernels.cases import OURS, WIDTHS, Trial, width_case
from bench.kernels.conftest import Compare
from bench.roofline import work
from bench.target import Target
from sparseq_kernels import use_backend

OP = torch.ops.sparseq.gelu_quantize_rows
QUANTIZE = torch.ops.sparseq.quantize_rows


def eager(x: Tensor) -> tuple[Tensor, Tensor]:
    return peers.eager_quantize_rows(F.gelu(x))


def make_trial(target: Target, M: int, width: int) -> Trial:
    x = torch.randn(M, width, device=target.device, dtype=target.dtype)
    candidates = {
        OURS: lambda: OP(x),
        "gelu, then quantize_rows": lambda: QUANTIZE(F.gelu(x)),
        "torch, op by op": lambda: eager(x),
    }

    def check(present: Mapping[str, Call]) -> None:
        with use_backend("reference"):
            levels, scales = OP(x)
        for name, run in present.items():
            found, rows = run()
            # erf is rounded differently, which can turn a tie.
            require_close(f"{name}, integers", found.float(), levels.float(), 1e-2)
            require_close(f"{name}, scales", rows, scales, 1e-2 if target.gpu else 1e-5)

    trial = Trial(dict(candidates), check)
    if target.gpu:
        compiled = peers.compiled(eager, target)
        trial.add("torch, compiled", lambda: compiled(x), peers.why_not_compiled(WIDTHS[width], M, target))
    return trial


def test_gelu_quantize_rows(compare: Compare, target: Target, width: int, M: int) -> None:
    least = work([(M * width, target.dtype), (M * width, torch.int8), (M, torch.float32)])
    compare(width_case(width, M, "forward"), lambda: make_trial(target, M, width), least)
