"""int8_linear: an int8 product with quantization, scales, bias and activation inside."""

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from bench.check import require_close, require_equal
from bench.clock import Call
from bench.kernels import peers
from bench.kernels.cases import LAYERS, OURS, Benchmark, Case, Compare, Trial, layer_case
from bench.packages import CURRENT, Libraries, reference
from bench.roofline import Work, work
from bench.target import Target

OP = "int8_linear"
OURS_INT8 = f"{OURS}, x as int8"
INT_MM = "torch._int_mm"
EAGER = "torch._int_mm + eager scales"
DYNAMIC = "torch dynamic quantization"
FLOATS = {name: dtype for dtype, name in peers.LINEAR.items()}


def make_operands(target: Target, M: int, outputs: int, inputs: int) -> tuple[Tensor, ...]:
    """(x [M, inputs] in the target's type, weight [outputs, inputs] and bias in fp32, the weight's int8 values and its
    scale)"""
    x = torch.randn(M, inputs, device=target.device, dtype=target.dtype)
    bias = torch.randn(outputs, device=target.device)
    dense = torch.randn(outputs, inputs, device=target.device) * inputs**-0.5
    return x, dense, bias, *reference("quantize_rows", dense)


def make_trial(target: Target, libraries: Libraries, M: int, outputs: int, inputs: int, activation: str) -> Trial:
    x, dense, bias, weight, scale = make_operands(target, M, outputs, inputs)
    values, rows = reference("quantize_rows", x)

    def check(present: Mapping[str, Call]) -> None:
        one = torch.ones(1, device=target.device)
        ones = one.expand(outputs).contiguous()
        exact = (values.double() @ weight.double().t()).float()
        for name, library in libraries.items():
            sums = library.bind(OP, values, weight, ones, None, one, "none", torch.float32)()
            require_equal(f"{name}, accumulators", sums, exact)
        expected = reference(OP, x, weight, scale, bias, None, activation)
        for name, run in present.items():
            if name == INT_MM:
                require_equal(name, run().float(), exact)
            else:
                require_close(name, run(), expected, tolerance(name, x.dtype))

    given = (x, weight, scale, bias, None, activation)
    trial = Trial({name: library.bind(OP, *given) for name, library in libraries.items()}, check)
    for name in ("bf16 nn.Linear", "fp16 nn.Linear") if target.gpu else ("fp32 nn.Linear", "bf16 nn.Linear"):
        a, b, c = (t.to(FLOATS[name]) for t in (x, dense, bias))
        trial.add(name, partial(peers.linear, a, b, c, activation))
    if target.gpu:
        trial.add(OURS_INT8, CURRENT.bind(OP, values, weight, scale, bias, rows, activation, x.dtype))
        trial.pairs = [(OURS_INT8, INT_MM), (OURS_INT8, "bf16 nn.Linear")]
    else:
        call, reason = _dynamic(dense, bias, x, activation)
        trial.add(DYNAMIC, call, reason)
    reason = peers.why_not_int_mm(M, outputs, inputs, target.gpu)
    trial.add(EAGER, lambda: peers.int_mm_linear(x, weight, scale, bias, activation), reason)
    trial.add(INT_MM, lambda: torch._int_mm(values, weight.t()), reason)
    return trial


def _dynamic(dense: Tensor, bias: Tensor, x: Tensor, activation: str) -> tuple[Callable[[], Tensor], str | None]:
    """(a call of torch's dynamically quantized layer, why there is none)"""
    try:
        layer = peers.dynamic_linear(dense, bias)
    except (ImportError, RuntimeError, AttributeError) as error:
        return lambda: x, f"torch has no dynamic quantization here: {error}".splitlines()[0]
    floats = x.float()
    return lambda: peers.ACTIVATIONS[activation](layer(floats)), None


def tolerance(name: str, dtype: torch.dtype) -> float:
    """nn.Linear has unquantized operands; torch's dynamic quantization has one scale for all rows; x / s for
    x * (1 / s) can turn a tie; an output is rounded to its type."""
    if name in FLOATS or name == DYNAMIC:
        return 3e-2
    exact = 1e-6 if name.startswith(OURS) else 2e-3
    return max(exact, 1e-2 if dtype != torch.float32 else 0.0)


def least(target: Target, M: int, outputs: int, inputs: int) -> Work:
    x, y, weight = (M * inputs, target.dtype), (M * outputs, target.dtype), (outputs * inputs, torch.int8)
    return work([x, weight, (2 * outputs, torch.float32), y], (torch.int8, M * outputs * inputs))


def activation_of(target: Target, outputs: int, inputs: int) -> str:
    """As in BERT: the feed-forward's first layer ends with its activation. On a CPU the product alone is compared."""
    return "gelu" if target.gpu and outputs > inputs else "none"


def step_of(activation: str) -> str:
    return "forward" if activation == "none" else f"forward, {activation}"


def build(target: Target, M: int, inputs: int, outputs: int) -> Case:
    activation = activation_of(target, outputs, inputs)
    return Case(
        layer_case(outputs, inputs, M, step_of(activation)),
        lambda libraries: make_trial(target, libraries, M, outputs, inputs, activation),
        least(target, M, outputs, inputs),
    )


BENCHMARK = Benchmark(OP, "int8 product, x quantized in it, with scales and bias", ("M", "K", "N"), LAYERS, build)


def test_int8_linear(compare: Compare, case: Case) -> None:
    compare(case)
