"""qat_linear: a linear layer in quantization-aware training, forward and backward."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.clock import Call
from bench.kernels import peers
from bench.kernels.cases import LAYERS, OURS, Benchmark, Case, Compare, Trial, layer_case
from bench.kernels.training import Operands, ours
from bench.packages import Libraries
from bench.roofline import linear_step
from bench.target import Target
from sparseq_kernels import use_backend

OP = "qat_linear"
FAKE = "torch fake_quantize + nn.Linear"


def fake_quantized(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """torch's fake-quant operators, as torch.ao's QAT layers place them, then a floating-point product. Activations
    have one scale in all, as those layers give them."""
    zero = torch.zeros(1, dtype=torch.int32)
    with torch.no_grad():
        input_scale = (x.abs().amax() / 127).reshape(1)
        weight_scale = weight.abs().amax(dim=1) / 127
    x = torch.fake_quantize_per_tensor_affine(x, input_scale, zero, -127, 127)
    zeros = torch.zeros(weight.shape[0], dtype=torch.int32)
    return F.linear(x, torch.fake_quantize_per_channel_affine(weight, weight_scale, zeros, 0, -127, 127), bias)


def make_trial(target: Target, libraries: Libraries, M: int, outputs: int, inputs: int) -> Trial:
    operands = Operands(target, M, outputs, inputs)
    exact = target.dtype == torch.float32
    plain = peers.LINEAR[target.dtype]
    fake = fake_quantized if exact and not target.gpu else peers.fake_quantized_linear
    # A product of bf16 is rounded to it; nn.Linear has unquantized operands.
    tolerances = {plain: 3e-2, FAKE: 5e-2} | dict.fromkeys(libraries, 1e-5 if exact and not target.gpu else 1e-2)
    candidates = {name: operands.step(ours(library, OP)) for name, library in libraries.items()}
    candidates |= {plain: operands.step(F.linear, target.dtype), FAKE: operands.step(fake)}

    def check(present: Mapping[str, Call]) -> None:
        with use_backend("reference"):
            expected = tuple(t.detach() for t in candidates[OURS]())
        for name in present:
            operands.require(name, candidates[name], expected, tolerances[name])

    return Trial(dict(candidates), check)


def build(target: Target, M: int, inputs: int, outputs: int) -> Case:
    return Case(
        layer_case(outputs, inputs, M, "forward + backward"),
        lambda libraries: make_trial(target, libraries, M, outputs, inputs),
        linear_step(M, outputs, inputs, torch.int8, target.dtype, torch.float32),
        memory=True,
        inference=False,
    )


BENCHMARK = Benchmark(OP, "a linear layer's training step with int8 products", ("M", "K", "N"), LAYERS, build)


def test_qat_linear(compare: Compare, case: Case) -> None:
    compare(case)
