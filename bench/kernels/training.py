"""A linear layer's training step, with any function in the layer's place."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bench.check import require_close
from bench.packages import Packages
from bench.target import Target

Linear = Callable[[Tensor, Tensor, Tensor], Tensor]
NAMES = ("output", "input's gradient", "weight's gradient", "bias's gradient")


def ours(library: Packages, op: str, before_bias: tuple[Any, ...] = (), after: tuple[Any, ...] = ()) -> Linear:
    """An op of x, weight, `before_bias`, bias, `after` as a linear layer; the schema's defaults are the rest."""
    function = library.function(op)
    rest = library.complete(op, (None, None, *before_bias, None, *after))[3 + len(before_bias) :]

    def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        found = function(x, weight, *before_bias, bias, *rest)
        result: Tensor = found if isinstance(found, Tensor) else found[0]
        return result

    return linear


class Operands:
    """x [M, inputs] and the output's gradient in the target's type; weight [outputs, inputs] and bias in fp32."""

    def __init__(self, target: Target, M: int, outputs: int, inputs: int) -> None:
        device, dtype = target.device, target.dtype
        self.x = torch.randn(M, inputs, device=device, dtype=dtype).requires_grad_()
        self.weight = (torch.randn(outputs, inputs, device=device) * inputs**-0.5).requires_grad_()
        self.bias = torch.randn(outputs, device=device).requires_grad_()
        self.grad = torch.randn(M, outputs, device=device, dtype=dtype)

    def step(self, linear: Linear, dtype: torch.dtype | None = None) -> Callable[[], tuple[Tensor, ...]]:
        """Forward and backward: (output, gradients of x, weight and bias), nothing accumulated. dtype: of x and the
        parameters, where `linear` takes other ones than these."""
        inputs = [
            t if dtype is None else t.detach().to(dtype).requires_grad_() for t in (self.x, self.weight, self.bias)
        ]
        grad = self.grad if dtype is None else self.grad.to(dtype)

        def run() -> tuple[Tensor, ...]:
            out = linear(*inputs)
            return out, *torch.autograd.grad(out, inputs, grad)

        return run

    def require(
        self, name: str, step: Callable[[], tuple[Tensor, ...]], expected: tuple[Tensor, ...], tolerance: float
    ) -> None:
        for what, found, wanted in zip(NAMES, step(), expected, strict=True):
            require_close(f"{name}, {what}", found.detach(), wanted, tolerance)
