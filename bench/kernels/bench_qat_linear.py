import torch
import torch.nn.functional as F
from torch import Tensor

from bench.kernels.cases import OURS, layer_case, over_layers, over_rows
from bench.kernels.conftest import Compare
from bench.kernels.training import Operands
from sparseq_kernels import call, use_backend


def ours(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return call("qat_linear", x, weight, bias, None, None, None, 8, 8, None, False)


def fake_quantized(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """torch's fake-quant operators, as torch.ao's QAT layers place them, then a floating-point product. Activations
    have one scale in all, the only kind that the operators have for them."""
    zero = torch.zeros(1, dtype=torch.int32)
    with torch.no_grad():
        input_scale = (x.abs().amax() / 127).reshape(1)
        weight_scale = weight.abs().amax(dim=1) / 127
    x = torch.fake_quantize_per_tensor_affine(x, input_scale, zero, -127, 127)
    zeros = torch.zeros(weight.shape[0], dtype=torch.int32)
    return F.linear(x, torch.fake_quantize_per_channel_affine(weight, weight_scale, zeros, 0, -127, 127), bias)


@over_rows
@over_layers
def test_qat_linear(compare: Compare, outputs: int, inputs: int, M: int) -> None:
    operands = Operands(M, outputs, inputs)
    candidates = {
        OURS: operands.step(ours),
        "fp32 nn.Linear": operands.step(F.linear),
        "torch fake_quantize + nn.Linear": operands.step(fake_quantized),
    }

    def check() -> None:
        with use_backend("reference"):
            expected = operands.results(candidates[OURS])
        for (name, step), tolerance in zip(candidates.items(), (1e-5, 3e-2, 5e-2), strict=True):
            operands.require(name, step, expected, tolerance)

    compare(layer_case(outputs, inputs, M, "forward + backward"), check, candidates)
