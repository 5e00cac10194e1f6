from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.clock import Call
from bench.kernels.cases import OURS, Trial, layer_case
from bench.kernels.conftest import Compare
from bench.kernels.training import Operands
from bench.roofline import Work, joined, linear_step, work
from bench.target import Target
from sparseq_kernels import call

SPARSITY = 0.6
DENSE, MULTIPLIED = "dense nn.Linear", "weight * mask, nn.Linear"


def make_trial(target: Target, M: int, outputs: int, inputs: int) -> Trial:
    operands = Operands(target, M, outputs, inputs)
    dtype = target.dtype
    mask = torch.rand(outputs, inputs, device=target.device) >= SPARSITY
    factor = mask.to(dtype)

    def ours(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return call("masked_linear", x, weight, mask, bias, False)

    def multiplied(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.linear(x, weight * factor, bias)

    candidates = {
        OURS: operands.step(ours, dtype),
        MULTIPLIED: operands.step(multiplied, dtype),
        DENSE: operands.step(F.linear, dtype),
    }

    def check(present: Mapping[str, Call]) -> None:
        x, grad = operands.x.detach().double(), operands.grad.double()
        weight = operands.weight.detach().to(dtype).double() * mask
        output = x @ weight.t() + operands.bias.detach().to(dtype)
        expected = (output, grad @ weight, grad.t() @ x * mask, grad.sum(0))
        for name in [name for name in present if name != DENSE]:
            operands.require(name, candidates[name], expected, 1e-2 if target.gpu else 1e-5)

    return Trial(dict(candidates), check)


def least(target: Target, M: int, outputs: int, inputs: int) -> Work:
    mask = work([(2 * outputs * inputs, torch.bool)])
    return joined(linear_step(M, outputs, inputs, target.dtype, target.dtype, target.dtype), mask)


def test_masked_linear(compare: Compare, target: Target, outputs: int, inputs: int, M: int) -> None:
    compare(
        layer_case(outputs, inputs, M, "forward + backward"),
        lambda: make_trial(target, M, outputs, inputs),
        least(target, M, outputs, inputs),
        memory=True,
    )
