from collections.abc import Mapping
from functools import partial

import torch

from bench.check import require_close, require_equal
from bench.clock import Call
from bench.kernels import peers
from bench.kernels.cases import LAYERS, OURS, Trial, layer_case
from bench.kernels.conftest import Compare
from bench.roofline import Work, work
from bench.target import Target
from sparseq_kernels import use_backend
from sparseq_kernels.reference.quantize_rows import quantize_rows

OP = torch.ops.sparseq.int8_linear
OURS_INT8 = "sparseq, x as int8"
INT_MM = "torch._int_mm"
EAGER = "torch._int_mm + eager scales"
COMPILED = "torch._int_mm + scales, compiled"
TORCHAO = "torchao int8 dynamic, compiled"
FLOATS = {"fp32 nn.Linear": torch.float32, "bf16 nn.Linear": torch.bfloat16, "fp16 nn.Linear": torch.float16}


def make_trial(target: Target, M: int, outputs: int, inputs: int, activation: str) -> Trial:
    x = torch.randn(M, inputs, device=target.device, dtype=target.dtype)
    bias = torch.randn(outputs, device=target.device)
    dense = torch.randn(outputs, inputs, device=target.device) * inputs**-0.5
    weight, scale = quantize_rows(dense, 8)
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
        why = peers.why_not_compiled(LAYERS[outputs, inputs], M, target)
        eager = peers.compiled(peers.int_mm_linear, target)
        trial.add(COMPILED, lambda: eager(x, weight, scale, bias, activation), reason or why)
        _add_torchao(trial, (x, dense, bias.to(x.dtype)), activation, target, why)

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
    if name in FLOATS or name == TORCHAO:
        return 3e-2
    exact = 1e-6 if name in (OURS, OURS_INT8) else 2e-3
    return max(exact, 1e-2 if dtype == torch.bfloat16 else 0.0)


def _add_torchao(
    trial: Trial, operands: tuple[torch.Tensor, ...], activation: str, target: Target, why_not: str | None
) -> None:
    x, dense, bias = operands
    try:
        weight = peers.torchao_weight(dense, x.dtype) if why_not is None else dense
    except ImportError:
        weight, why_not = dense, "torchao is not installed"
    except Exception as error:
        weight, why_not = dense, f"torchao cannot make its weight: {error}"
    run = peers.compiled(peers.linear, target)
    trial.add(TORCHAO, lambda: run(x, weight, bias, activation), why_not)


def least(target: Target, M: int, outputs: int, inputs: int) -> Work:
    x, y, weight = (M * inputs, target.dtype), (M * outputs, target.dtype), (outputs * inputs, torch.int8)
    return work([x, weight, (2 * outputs, torch.float32), y], (torch.int8, M * outputs * inputs))


def test_int8_linear(compare: Compare, target: Target, outputs: int, inputs: int, M: int) -> None:
    # As in BERT: the feed-forward's first layer ends with its activation. On a CPU the product alone is compared.
    activation = "gelu" if target.gpu and outputs > inputs else "none"
    step = "forward" if activation == "none" else f"forward, {activation}"
    with torch.inference_mode():
        compare(
            layer_case(outputs, inputs, M, step),
            lambda: make_trial(target, M, outputs, inputs, activation),
            least(target, M, outputs, inputs),
        )
