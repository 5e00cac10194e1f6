"""fake_quant: quantize and dequantize with a learned scale, forward and backward."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from bench.check import require_close
from bench.clock import Call
from bench.kernels.cases import WIDTHS, Benchmark, Case, Compare, Trial, width_case
from bench.packages import Libraries
from bench.roofline import joined, work
from bench.target import Target
from sparseq_kernels.numerics import CLIP_TOLERANCE

PEER = "torch learnable fake_quantize"


def peer(x: Tensor, scale: Tensor) -> Tensor:
    """torch's own learnable fake-quant (LSQ), one scale in all. It clips by the rounded value, so that the gradients of
    values between qmax and qmax + 1/2 differ from ours, and with them the scale's."""
    zero = torch.zeros(1, device=x.device)
    return torch._fake_quantize_learnable_per_tensor_affine(x, scale, zero, -127, 127, (x.numel() * 127) ** -0.5)


def forward_backward(
    quantize: Callable[..., Tensor], x: Tensor, scale: Tensor, grad: Tensor, *rest: object
) -> Callable[[], tuple[Tensor, ...]]:
    def run() -> tuple[Tensor, ...]:
        out = quantize(x, scale, *rest)
        return out, *torch.autograd.grad(out, (x, scale), grad)

    return run


def expected(x: Tensor, scale: Tensor, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Output and gradients in fp64, from the definition (LSQ, equation 3, and its gradient scale)."""
    v = x.double() / scale.double()
    # The limit as the arithmetic's fp32 has it.
    inside = v.abs() <= torch.tensor(127 * CLIP_TOLERANCE, dtype=torch.float32).double().to(v.device)
    slope = torch.where(inside, v.round() - v, v.clamp(-127, 127))
    factor = (x.numel() * 127) ** -0.5
    return v.round().clamp(-127, 127) * scale, grad * inside, (grad * slope).sum().reshape(1) * factor


def make_trial(target: Target, libraries: Libraries, M: int, width: int) -> Trial:
    # fp32, torch's own has no other type. The scale is a power of two, so that nothing lies nearer to a tie in fp32
    # than in fp64; some values are clipped.
    x = torch.randn(M, width, device=target.device, requires_grad=True)
    scale = torch.tensor([2.0**-6], device=target.device, requires_grad=True)
    grad = torch.randn(M, width, device=target.device)

    def check(present: Mapping[str, Call]) -> None:
        wanted = expected(x.detach(), scale.detach(), grad)
        for name, run in present.items():
            tolerances = (1e-6, 1e-6, 1e-3) if name in libraries else (1e-6, 0.1)
            results = zip(("output", "gradient", "scale's gradient"), run(), wanted, strict=True)
            for (what, found, right), tolerance in zip(results, tolerances, strict=False):
                require_close(f"{name}, {what}", found.detach(), right, tolerance)

    candidates = {
        name: forward_backward(library.function("fake_quant"), x, scale, grad, 8) for name, library in libraries.items()
    }
    return Trial({**candidates, PEER: forward_backward(peer, x, scale, grad)}, check)


def build(target: Target, M: int, width: int) -> Case:
    values = (M * width, torch.float32)
    least = joined(work([values, values]), work([values, values, values]))
    described = width_case(width, M, "forward + backward")
    return Case(described, lambda libraries: make_trial(target, libraries, M, width), least, inference=False)


BENCHMARK = Benchmark(
    "fake_quant", "fake-quantization with a learned scale (LSQ)", ("M", "K"), WIDTHS, build, takes_dtype=False
)


def test_fake_quant(compare: Compare, case: Case) -> None:
    compare(case)
