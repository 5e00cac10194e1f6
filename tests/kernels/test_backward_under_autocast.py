"""`loss.backward()` within autocast: an op's backward gives the gradients that it gives outside."""

import pytest
import torch
from samples import DIFFERENTIABLE, call

from sparseq_kernels import use_backend
from sparseq_kernels.backends import runnable

# Products by sparse weights share their backward with `int8_linear`.
OPS = sorted(op for op in DIFFERENTIABLE if op == "int8_linear" or not op.endswith("int8_linear"))

pytestmark = pytest.mark.processor


def arguments(op: str, learned: bool) -> list[object]:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(6, 16, generator=draw).requires_grad_()
    weight = torch.randn(8, 16, generator=draw).requires_grad_()
    bias = torch.randn(8, generator=draw).requires_grad_()
    mask = torch.rand(8, 16, generator=draw) < 0.5
    if op == "masked_linear":
        return [x, weight, mask, bias, False, None]
    if op == "fake_quant":
        return [x, torch.tensor(0.02).requires_grad_(learned), 8]
    if op == "int8_linear":
        levels = torch.randint(-127, 128, (8, 16), generator=draw, dtype=torch.int8)
        return [x, levels, torch.full((8,), 0.02), bias, None, "none", None, None]
    scale = torch.full((8,), 0.02).requires_grad_() if learned else None
    return [x, weight, bias, mask, scale, None, 8, 8, None, False, None]


def gradients(op: str, learned: bool, backend: str, forward: bool, backward: bool) -> list[torch.Tensor]:
    """Of an op whose forward and backward run under autocast, or not."""
    given = arguments(op, learned)
    with use_backend(backend):
        with torch.autocast("cpu", torch.bfloat16, enabled=forward):
            loss = call(op, *given).float().square().sum()
        with torch.autocast("cpu", torch.bfloat16, enabled=backward):
            loss.backward()
    leaves = [g for g in given if isinstance(g, torch.Tensor) and g.requires_grad]
    for leaf in leaves:
        assert leaf.grad is not None and leaf.grad.dtype == leaf.dtype
    return [leaf.grad for leaf in leaves]  # type: ignore[misc]


@pytest.mark.parametrize("backend", runnable("cpu"))
@pytest.mark.parametrize("forward", [False, True], ids=["", "forward too"])
@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("op", OPS)
def test_the_gradients_are_those_of_a_backward_outside(op: str, learned: bool, forward: bool, backend: str) -> None:
    inside, outside = (gradients(op, learned, backend, forward, backward) for backward in (True, False))
    for found, wanted in zip(inside, outside, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
