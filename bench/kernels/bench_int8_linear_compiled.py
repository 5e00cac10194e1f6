"""On a GPU, `int8_linear` beside peers that torch.compile makes: it takes so long that they are a benchmark apart."""

from collections.abc import Mapping

import pytest
import torch

from bench.check import require_close
from bench.clock import Call
from bench.kernels import peers
from bench.kernels.bench_int8_linear import OP, activation_of, least, make_operands, step_of, tolerance
from bench.kernels.cases import LAYERS, OURS, Trial, layer_case
from bench.kernels.conftest import Compare
from bench.target import Target
from sparseq_kernels import use_backend

COMPILED = "torch._int_mm + scales, compiled"
TORCHAO = "torchao int8 dynamic, compiled"


def make_trial(target: Target, M: int, outputs: int, inputs: int, activation: str) -> Trial:
    x, dense, bias, weight, scale = make_operands(target, M, outputs, inputs)
    trial = Trial({OURS: lambda: OP(x, weight, scale, bias, None, activation)}, lambda present: check(present))
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

    def check(present: Mapping[str, Call]) -> None:
        with use_backend("reference"):
            expected = OP(x, weight, scale, bias, None, activation)
        for name, run in present.items():
            # torchao quantizes in x's type.
            require_close(name, run(), expected, 3e-2 if name == TORCHAO else tolerance(name, x.dtype))

    return trial


def test_int8_linear_compiled(compare: Compare, target: Target, outputs: int, inputs: int, M: int) -> None:
    reason = peers.why_not_compiled(LAYERS[outputs, inputs], M, target) if target.gpu else "its peers are a GPU's"
    if reason:
        pytest.skip(reason)
    activation = activation_of(target, outputs, inputs)
    with torch.inference_mode():
        compare(
            layer_case(outputs, inputs, M, step_of(activation)),
            lambda: make_trial(target, M, outputs, inputs, activation),
            least(target, M, outputs, inputs),
        )
