"""A linear layer's training step, with any function in the layer's place."""

from collections.abc import Callable

import torch
from torch import Tensor

from bench.check import require_close

Linear = Callable[[Tensor, Tensor, Tensor], Tensor]


class Operands:
    """x [M, inputs], weight [outputs, inputs] and bias with gradients, and the output's gradient."""

    def __init__(self, M: int, outputs: int, inputs: int) -> None:
        self.x = torch.randn(M, inputs, requires_grad=True)
        self.weight = (torch.randn(outputs, inputs) * inputs**-0.5).requires_grad_()
        self.bias = torch.randn(outputs, requires_grad=True)
        self.grad = torch.randn(M, outputs)

    def step(self, linear: Linear) -> Callable[[], Tensor]:
        """Forward and backward, gradients not accumulated; returns the output."""

        def run() -> Tensor:
            self.x.grad = self.weight.grad = self.bias.grad = None
            out = linear(self.x, self.weight, self.bias)
            out.backward(self.grad)
            return out

        return run

    def results(self, step: Callable[[], Tensor]) -> dict[str, Tensor]:
        """Output and gradients of a step."""
        out = step().detach()
        gradients = {"input": self.x.grad, "weight": self.weight.grad, "bias": self.bias.grad}
        return {"output": out} | {f"{name}'s gradient": g.clone() for name, g in gradients.items() if g is not None}

    def require(self, name: str, step: Callable[[], Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
        found = self.results(step)
        for what, wanted in expected.items():
            require_close(f"{name}, {what}", found[what], wanted, tolerance)
