"""Layers with one input, how often they quantize it, and the comparison with layers that do not share it."""

import contextlib
from collections.abc import Iterator
from unittest import mock

import torch
from torch import nn

from sparseq.nn import QuantSparseLinear, linear
from sparseq_kernels import qat_linear
from sparseq_kernels.cpu import qat_linear as cpu
from sparseq_kernels.reference import qat_linear as reference

WIDTH = 24


class Counter:
    def __init__(self) -> None:
        self.count = 0

    def of(self, function):
        def counting(*args, **named):
            self.count += 1
            return function(*args, **named)

        return counting


@contextlib.contextmanager
def quantizations() -> Iterator[Counter]:
    """Counts how often an input is quantized."""
    counter = Counter()
    places = ((cpu, "quantize_input"), (reference, "quantize_input"))
    with contextlib.ExitStack() as stack:
        for module, name in places:
            stack.enter_context(mock.patch.object(module, name, counter.of(getattr(module, name))))
        yield counter


@contextlib.contextmanager
def unshared() -> Iterator[None]:
    with mock.patch.object(linear, "shared_qat_linear", qat_linear):
        yield


class Attention(nn.Module):
    """Three layers of one input, which is computed here, as a transformer's are. between(i, hidden) runs before the
    i-th of them."""

    def __init__(self, between=lambda i, hidden: hidden, **settings):
        super().__init__()
        self.below = nn.Sequential(nn.LayerNorm(WIDTH))
        self.layers = nn.ModuleList([QuantSparseLinear(WIDTH, WIDTH // 2 * (i + 1), **settings) for i in range(3)])
        self.between = between

    def forward(self, x):
        hidden = self.below(x)
        return torch.cat([layer(self.between(i, hidden)) for i, layer in enumerate(self.layers)], -1)


def results(model, x, forward=None):
    """The output, and the gradients of the input and of all parameters."""
    leaf = x.clone().requires_grad_()
    model.zero_grad()
    y = (model if forward is None else forward)(leaf)
    y.backward(torch.linspace(-1, 1, y.numel()).reshape(y.shape).to(y.dtype))
    return [y.detach(), leaf.grad, *[p.grad.clone() for p in model.parameters()]]


def assert_same(found, expected):
    assert len(found) == len(expected)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def assert_shares(model, x, times=1, forward=None):
    """That the input is quantized so many times, with the results of layers that do not share."""
    with quantizations() as counter:
        found = results(model, x, forward)
    assert counter.count == times
    with unshared(), quantizations() as counter:
        assert_same(found, results(model, x, forward))
    assert counter.count == 3
