from collections.abc import Mapping
from functools import partial

import torch

from bench.check import require_close, require_equal
from bench.clock import Call
from bench.kernels import peers
from bench.kernels.cases import OURS, Trial, layer_case
from bench.kernels.conftest import Compare
from bench.roofline import Work, work
from bench.target import Target
from sparseq_kernels import use_backend
from sparseq_kernels.reference.quantize_rows import quantize_rows

OP = torch.ops.sparseq.int8_linear
OURS_INT8 = "sparseq, x as int8"
INT_MM = "torch._int_mm"
EAGER = "torch._int_mm + eager scales"
FLOATS = {"fp32 nn.Linear": torch.float32, "bf16 nn.Linear": torch.bfloat16, "fp16 nn.Linear": torch.float16}


def make_operands(target: Target, M: int, outputs: int, inputs: int) -> tuple[torch.Tensor, ...]:
    """(x [M, inputs] in the target's type, weight [outputs, inputs] and bias in fp32, the weight's levels and scale)"""
    x = torch.randn(M, inputs, device=target.device, dtype=target.dtype)
    bias = torch.randn(outputs, device=target.device)
    dense = torch.randn(outputs, inputs, device=target.device) * inputs**-0.5
    return x, dense, bias, *quantize_rows(dense, 8)


def make_trial(target: Target, M: int, outputs: int, inputs: int, activation: str) -> Trial:
    x, dense, bias, weight, scale = make_operands(target, M, outputs, inputs)
    trial = Trial({OURS: lambda: OP(x, weight, scale, bias, None, activation)}, lambda present: check(present))
    floats = ("bf16 nn.Linear", "fp16 nn.Linear") if target.gpu else ("fp32 nn.Linear",)
    for name in floats:
        a, b, c = (t.to(FLOATS[name]) for t in (x, dense, bias))
        trial.candidates[name] = partial(peers.linear, a, b, c, activation)
    levels, rows = quantize_rows(x, 8)
    if target.gpu:
        trial.candidates[OURS_INT8] = lambda: OP(levels, weight, scale, bias, rows, activation, x.dtype)
        trial.pairs = [(OURS_INT8, INT_MM), (OURS_INT8, "bf16 nn.Linear")]
    reason = peers.why_not_int_mm(M, outputs, inputs) if target.gpu else None
    trial.add(EAGER, lambda: peers.int_mm_linear(x, weight, scale, bias, activation), reason)
    if target.gpu:
        trial.add(INT_MM, lambda: torch._int_mm(levels, weight.t()), reason)

    def check(present: Mapping[str, Call]) -> None:
        one = torch.ones(1, device=target.device)
        sums = OP(levels, weight, one.expand(outputs).contiguous(), None, one, "none", torch.float32)
        require_equal("int8_linear, accumulators", sums, (levels.double() @ weight.double().t()).float())
        with use_backend("reference"):
            expected = OP(x, weight, scale, bias, None, activation)
        for name, run in present.items():
            if name == INT_MM:
                require_equal(name, run().float(), sums)
            else:
                require_close(name, run(), expected, tolerance(name, x.dtype))

    return trial


def tolerance(name: str, dtype: torch.dtype) -> float:
    """nn.Linear has unquantized operands; x / s for x * (1 / s) can turn a tie; an output is rounded to its type."""
    if name in FLOATS:
        return 3e-2
    exact = 1e-6 if name in (OURS, OURS_INT8) else 2e-3
    return max(exact, 1e-2 if dtype == torch.bfloat16 else 0.0)


def least(target: Target, M: int, outputs: int, inputs: int) -> Work:
    x, y, weight = (M * inputs, target.dtype), (M * outputs, target.dtype), (outputs * inputs, torch.int8)
    return work([x, weight, (2 * outputs, torch.float32), y], (torch.int8, M * outputs * inputs))


def activation_of(target: Target, outputs: int, inputs: int) -> str:
    """As in BERT: the feed-forward's first layer ends with its activation. On a CPU the product alone is compared."""
    return "gelu" if target.gpu and outputs > inputs else "none"


def step_of(activation: str) -> str:
    return "forward" if activation == "none" else f"forward, {activation}"


def test_int8_linear(compare: Compare, target: Target, outputs: int, inputs: int, M: int) -> None:
    activation = activation_of(target, outputs, inputs)
    with torch.inference_mode():
        compare(
            layer_case(outputs, inputs, M, step_of(activation)),
            lambda: make_trial(target, M, outputs, inputs, activation),
            least(target, M, outputs, inputs),
        )
