from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.check import require_close
from bench.clock import Call
from bench.kernels import peers
from bench.kernels.cases import HIDDEN, OURS, Trial, hidden_case
from bench.kernels.conftest import Compare
from bench.roofline import work
from bench.target import Target
from sparseq_kernels import use_backend

OP = torch.ops.sparseq.layer_norm_quantize_rows
QUANTIZE = torch.ops.sparseq.quantize_rows
EPS = 1e-12


def norm(x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.layer_norm(x + residual, weight.shape, weight, bias, EPS)


def eager(x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    y = norm(x, residual, weight, bias)
    return *peers.eager_quantize_rows(y), y


def make_trial(target: Target, M: int, hidden: int) -> Trial:
    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, device=target.device, dtype=target.dtype)

    operands = (draw(M, hidden), draw(M, hidden), draw(hidden), draw(hidden))

    def two_ops() -> tuple[Tensor, Tensor, Tensor]:
        y = norm(*operands)
        return *QUANTIZE(y), y

    candidates = {
        OURS: lambda: OP(*operands, EPS),
        "layer_norm, then quantize_rows": two_ops,
        "torch, op by op": lambda: eager(*operands),
    }

    def check(present: Mapping[str, Call]) -> None:
        with use_backend("reference"):
            levels, _, y = OP(*operands, EPS)
        for name, run in present.items():
            found, _, output = run()
            # In bf16 the peers round the sum before they normalize it; a value rounded differently can turn a tie.
            require_close(f"{name}, output", output, y, 1e-2 if target.gpu else 1e-5)
            require_close(f"{name}, integers", found.float(), levels.float(), 2e-2 if target.gpu else 1e-2)

    trial = Trial(dict(candidates), check)
    if target.gpu:
        compiled = peers.compiled(eager, target)
        trial.add("torch, compiled", lambda: compiled(*operands), peers.why_not_compiled(HIDDEN[hidden], M, target))
    return trial


def test_layer_norm_quantize_rows(compare: Compare, target: Target, hidden: int, M: int) -> None:
    floats = (3 * M * hidden + 2 * hidden, target.dtype)
    least = work([floats, (M * hidden, torch.int8), (M, torch.float32)])
    compare(hidden_case(hidden, str(hidden), "forward", M=M), lambda: make_trial(target, M, hidden), least)
