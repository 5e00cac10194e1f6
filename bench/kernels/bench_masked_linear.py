import torch
import torch.nn.functional as F
from torch import Tensor

from bench.kernels.cases import OURS, layer_case, over_layers, over_rows
from bench.kernels.conftest import Compare
from bench.kernels.training import Operands
from sparseq_kernels import call

SPARSITY = 0.6


@over_rows
@over_layers
def test_masked_linear(compare: Compare, outputs: int, inputs: int, M: int) -> None:
    operands = Operands(M, outputs, inputs)
    mask = torch.rand(outputs, inputs) >= SPARSITY
    factor = mask.float()

    def ours(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return call("masked_linear", x, weight, mask, bias, False)

    def multiplied(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.linear(x, weight * factor, bias)

    masked = {OURS: operands.step(ours), "weight * mask, nn.Linear": operands.step(multiplied)}

    def check() -> None:
        x, grad = operands.x.detach().double(), operands.grad.double()
        weight = operands.weight.detach().double() * mask
        expected = {
            "output": x @ weight.t() + operands.bias.detach(),
            "input's gradient": grad @ weight,
            "weight's gradient": grad.t() @ x * mask,
            "bias's gradient": grad.sum(0),
        }
        for name, step in masked.items():
            operands.require(name, step, expected, 1e-5)

    case = layer_case(outputs, inputs, M, "forward + backward")
    compare(case, check, masked | {"dense nn.Linear": operands.step(F.linear)})
