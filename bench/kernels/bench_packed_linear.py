"""packed_linear: a call of a whole `sparseq.nn.PackedLinear`, packed from a `QuantSparseLinear`, beside `nn.Linear`.

On a CPU also without native code (the backend "cpu"), and the layer before it is packed, which quantizes its weight in
every call.
"""

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bench.check import require_close
from bench.clock import Call
from bench.kernels import peers
from bench.kernels.bench_int8_linear import least
from bench.kernels.cases import LAYERS, OURS, Benchmark, Case, Compare, Trial, layer_case
from bench.packages import CURRENT, Libraries, Packages
from bench.target import Target
from sparseq_kernels import use_backend

PLAIN, QAT = f"{OURS} without a compiler", f"{OURS}, QAT"
# Of normally distributed weights and inputs, relative to the largest result.
TOLERANCE = 3e-2


def trained(library: Packages, dense: nn.Linear) -> Any:
    layers = importlib.import_module(f"{library.layers.__name__}.nn")
    return layers.QuantSparseLinear.from_linear(dense).eval()


def packed(library: Packages, dense: nn.Linear) -> Any:
    return importlib.import_module(f"{library.layers.__name__}.nn").pack(trained(library, dense))


def without_compiler(layer: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    def run() -> Tensor:
        with use_backend("cpu"):
            result: Tensor = layer(x)
        return result

    return run


def make_trial(target: Target, libraries: Libraries, M: int, outputs: int, inputs: int) -> Trial:
    x = torch.randn(M, inputs, device=target.device, dtype=target.dtype)
    dense = nn.Linear(inputs, outputs).to(target.device)
    plain = nn.Linear(inputs, outputs, device=target.device, dtype=target.dtype)
    plain.load_state_dict(dense.state_dict())
    name_of_plain = peers.LINEAR[target.dtype]

    def check(present: Mapping[str, Call]) -> None:
        expected = dense(x.float())
        for name, run in present.items():
            require_close(name, run(), expected, TOLERANCE)

    def call(layer: nn.Module) -> Callable[[], Tensor]:
        return lambda: layer(x)

    trial = Trial({name: call(packed(library, dense)) for name, library in libraries.items()}, check)
    trial.add(name_of_plain, call(plain))
    if not target.gpu:
        trial.add(PLAIN, without_compiler(packed(CURRENT, dense), x))
    trial.add(QAT, call(trained(CURRENT, dense)))
    trial.pairs = [(PLAIN, name_of_plain), (QAT, name_of_plain)]
    return trial


def build(target: Target, M: int, inputs: int, outputs: int) -> Case:
    return Case(
        layer_case(outputs, inputs, M, "forward"),
        lambda libraries: make_trial(target, libraries, M, outputs, inputs),
        least(target, M, outputs, inputs),
    )


BENCHMARK = Benchmark("packed_linear", "a whole packed layer's call", ("M", "K", "N"), LAYERS, build, all_sizes=True)


def test_packed_linear(compare: Compare, case: Case) -> None:
    compare(case)
