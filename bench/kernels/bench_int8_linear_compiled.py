"""int8_linear on a GPU beside peers that torch.compile makes: it takes so long that they are a benchmark apart."""

from collections.abc import Mapping

from bench.check import require_close
from bench.clock import Call
from bench.kernels import peers
from bench.kernels.bench_int8_linear import OP, activation_of, least, make_operands, step_of, tolerance
from bench.kernels.cases import LAYERS, Benchmark, Case, Compare, Shape, Trial, layer_case
from bench.packages import Libraries, reference
from bench.target import Target

COMPILED = "torch._int_mm + scales, compiled"
TORCHAO = "torchao int8 dynamic, compiled"


def make_trial(target: Target, libraries: Libraries, M: int, outputs: int, inputs: int, activation: str) -> Trial:
    x, dense, bias, weight, scale = make_operands(target, M, outputs, inputs)

    def check(present: Mapping[str, Call]) -> None:
        expected = reference(OP, x, weight, scale, bias, None, activation)
        for name, run in present.items():
            # torchao quantizes in x's type.
            require_close(name, run(), expected, 3e-2 if name == TORCHAO else tolerance(name, x.dtype))

    given = (x, weight, scale, bias, None, activation)
    trial = Trial({name: library.bind(OP, *given) for name, library in libraries.items()}, check)
    int_mm = peers.compiled(peers.int_mm_linear, target)
    trial.add(COMPILED, lambda: int_mm(x, weight, scale, bias, activation), peers.why_not_int_mm(M, outputs, inputs))
    bias_as_x, why_not = bias.to(x.dtype), None
    try:
        tensor = peers.torchao_weight(dense, x.dtype)
    except ImportError:
        tensor, why_not = dense, "torchao is not installed"
    except Exception as error:
        tensor, why_not = dense, f"torchao cannot make its weight: {error}"
    torchao = peers.compiled(peers.linear, target)
    trial.add(TORCHAO, lambda: torchao(x, tensor, bias_as_x, activation), why_not)
    return trial


def timed(target: Target, shape: Shape) -> bool:
    M, inputs, outputs = shape
    return peers.why_not_compiled(LAYERS.get((outputs, inputs), ()), M, target) is None


def build(target: Target, M: int, inputs: int, outputs: int) -> Case:
    activation = activation_of(target, outputs, inputs)
    return Case(
        layer_case(outputs, inputs, M, step_of(activation)),
        lambda libraries: make_trial(target, libraries, M, outputs, inputs, activation),
        least(target, M, outputs, inputs),
    )


BENCHMARK = Benchmark(
    "int8_linear_compiled",
    "int8_linear beside what torch.compile makes (GPU)",
    ("M", "K", "N"),
    LAYERS,
    build,
    timed=timed,
    why_not=lambda target: None if target.gpu else "its peers are compiled for a GPU",
)


def test_int8_linear_compiled(compare: Compare, case: Case) -> None:
    compare(case)
