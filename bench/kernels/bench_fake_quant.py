from collections.abc import Callable

import torch
from torch import Tensor

from bench.check import require_close
from bench.kernels.cases import OURS, over_rows, over_widths, width_case
from bench.kernels.conftest import Compare
from sparseq_kernels import call
from sparseq_kernels.numerics import CLIP_TOLERANCE

PEER = "torch learnable fake_quantize"


def peer(x: Tensor, scale: Tensor) -> Tensor:
    """torch's own learnable fake-quant (LSQ), one scale in all. It clips by the rounded value, so that the gradients of
    values between qmax and qmax + 1/2 differ from ours, and with them the scale's."""
    zero = torch.zeros(1)
    return torch._fake_quantize_learnable_per_tensor_affine(x, scale, zero, -127, 127, (x.numel() * 127) ** -0.5)


def forward_backward(
    quantize: Callable[[Tensor, Tensor], Tensor], x: Tensor, scale: Tensor, grad: Tensor
) -> Callable[[], Tensor]:
    def run() -> Tensor:
        x.grad = scale.grad = None
        out = quantize(x, scale)
        out.backward(grad)
        return out

    return run


def ours(x: Tensor, scale: Tensor) -> Tensor:
    return call("fake_quant", x, scale, 8)


def expected(x: Tensor, scale: Tensor, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Output and gradients in fp64, from the definition (LSQ, equation 3, and its gradient scale)."""
    v = x.double() / scale.double()
    inside = v.abs() <= 127 * CLIP_TOLERANCE
    slope = torch.where(inside, v.round() - v, v.clamp(-127, 127))
    factor = (x.numel() * 127) ** -0.5
    return v.round().clamp(-127, 127) * scale, grad * inside, (grad * slope).sum().reshape(1) * factor


@over_rows
@over_widths
def test_fake_quant(compare: Compare, width: int, M: int) -> None:
    # A power of two, so that nothing lies nearer to a tie in fp32 than in fp64; some values are clipped.
    x, scale = torch.randn(M, width, requires_grad=True), torch.tensor([2.0**-6], requires_grad=True)
    grad = torch.randn(M, width)
    candidates = {
        OURS: forward_backward(ours, x, scale, grad),
        PEER: forward_backward(peer, x, scale, grad),
    }

    def check() -> None:
        wanted = expected(x.detach(), scale.detach(), grad)
        tolerances = {OURS: (1e-6, 1e-6, 1e-3), PEER: (1e-6, 0.1)}
        for name, run in candidates.items():
            out = run().detach()
            assert x.grad is not None and scale.grad is not None
            results = zip(("output", "gradient", "scale's gradient"), (out, x.grad, scale.grad), wanted, strict=True)
            for (what, found, right), tolerance in zip(results, tolerances[name], strict=False):
                require_close(f"{name}, {what}", found, right, tolerance)

    compare(width_case(width, M, "forward + backward"), check, candidates)
