import torch
import torch.nn.functional as F
from torch import Tensor

from bench.check import require_close, require_equal
from bench.kernels.cases import OURS, layer_case, over_layers, over_rows
from bench.kernels.conftest import Compare
from sparseq_kernels import use_backend
from sparseq_kernels.cpu.int8_linear import int8_matmul
from sparseq_kernels.reference.int8_linear import int8_matmul as exact_matmul
from sparseq_kernels.reference.quantize_rows import quantize_rows

OP = torch.ops.sparseq.int8_linear


def int_mm_eager(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """torch._int_mm between torch's own operators. Its operands are contiguous and no dimension but M is 1: with other
    strides, or K = 1, it returns garbage on the CPU (torch 2.13)."""
    rows = x.abs().amax(dim=-1, keepdim=True) / 127
    acc = torch._int_mm(torch.round(x / rows).to(torch.int8), weight.t())
    return acc * rows * scale + bias


@over_rows
@over_layers
def test_int8_linear(compare: Compare, outputs: int, inputs: int, M: int) -> None:
    x, bias = torch.randn(M, inputs), torch.randn(outputs)
    dense = torch.randn(outputs, inputs) * inputs**-0.5
    weight, scale = quantize_rows(dense, 8)
    candidates = {
        OURS: lambda: OP(x, weight, scale, bias),
        "fp32 nn.Linear": lambda: F.linear(x, dense, bias),
        "torch._int_mm + eager scales": lambda: int_mm_eager(x, weight, scale, bias),
    }

    def check() -> None:
        integers = quantize_rows(x, 8)[0]
        require_equal("int8_linear, accumulators", int8_matmul(integers, weight), exact_matmul(integers, weight))
        with use_backend("reference"):
            expected = OP(x, weight, scale, bias)
        # nn.Linear has unquantized operands; x / s for x * (1 / s) can turn a tie.
        for (name, run), tolerance in zip(candidates.items(), (1e-6, 3e-2, 2e-3), strict=True):
            require_close(name, run(), expected, tolerance)

    with torch.inference_mode():
        compare(layer_case(outputs, inputs, M, "forward"), check, candidates)
