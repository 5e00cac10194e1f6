import torch
from torch import Tensor

from bench.check import require_close, require_equal
from bench.kernels.cases import OURS, over_rows, over_widths, width_case
from bench.kernels.conftest import Compare
from sparseq_kernels import use_backend

OP = torch.ops.sparseq.quantize_rows


def eager(x: Tensor) -> tuple[Tensor, Tensor]:
    scale = x.abs().amax(dim=-1, keepdim=True).clamp_min(1e-12) / 127
    return torch.round(x / scale).clamp_(-127, 127).to(torch.int8), scale.squeeze(-1)


@over_rows
@over_widths
def test_quantize_rows(compare: Compare, width: int, M: int) -> None:
    x = torch.randn(M, width)

    def check() -> None:
        with use_backend("reference"):
            expected = OP(x)
        for name, found, wanted in zip(("integers", "scales"), OP(x), expected, strict=True):
            require_equal(f"quantize_rows, {name}", found, wanted)
        require_close("eager", eager(x)[0].float(), expected[0].float(), 1e-2)

    compare(width_case(width, M, "forward"), check, {OURS: lambda: OP(x), "torch, op by op": lambda: eager(x)})
