from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.clock import Call
from bench.kernels import peers
from bench.kernels.cases import OURS, Trial, layer_case
from bench.kernels.conftest import Compare
from bench.kernels.training import Operands
from bench.roofline import linear_step
from bench.target import Target
from sparseq_kernels import call, use_backend

FAKE = "torch fake_quantize + nn.Linear"


def ours(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return call("qat_linear", x, weight, bias, None, None, None, 8, 8, None, False)


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


def make_trial(target: Target, M: int, outputs: int, inputs: int) -> Trial:
    operands = Operands(target, M, outputs, inputs)
    plain = "bf16 nn.Linear" if target.gpu else "fp32 nn.Linear"
    candidates = {
        OURS: operands.step(ours),
        plain: operands.step(F.linear, target.dtype),
        FAKE: operands.step(peers.fake_quantized_linear if target.gpu else fake_quantized),
    }
    # A product of bf16 is rounded to it; nn.Linear has unquantized operands.
    tolerances = {OURS: 1e-2 if target.gpu else 1e-5, plain: 3e-2, FAKE: 5e-2}

    def check(present: Mapping[str, Call]) -> None:
        with use_backend("reference"):
            expected = tuple(t.detach() for t in candidates[OURS]())
        for name in present:
            operands.require(name, candidates[name], expected, tolerances[name])

    return Trial(dict(candidates), check)


def test_qat_linear(compare: Compare, target: Target, outputs: int, inputs: int, M: int) -> None:
    compare(
        layer_case(outputs, inputs, M, "forward + backward"),
        lambda: make_trial(target, M, outputs, inputs),
        linear_step(M, outputs, inputs, torch.int8, target.dtype, torch.float32),
        memory=True,
    )
