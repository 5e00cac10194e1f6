"""The range of a layer's inputs, found from batches of them."""

from typing import Protocol

import torch
from torch import Tensor

from sparseq_kernels.numerics import qmax

METHODS = ("max", "average", "percentile", "mse")
PERCENTILE = 99.99
# A magnitude's bin is its fp32 exponent and the first six bits of its fraction: bins are 1.6 % wide at most, wherever a
# magnitude lies, and counts are the same on every device.
_SHIFT = 17
_BINS = 2**31 >> _SHIFT


class Range(Protocol):
    """Learns from one input after another; `largest`, 0-dim, is the end of the range then, for so many bits."""

    def observe(self, x: Tensor) -> None: ...

    def largest(self, bits: int) -> Tensor: ...


class Average:
    """The mean over the inputs of each one's largest magnitude."""

    def __init__(self) -> None:
        self.total, self.count = torch.zeros((), dtype=torch.float64), 0

    def observe(self, x: Tensor) -> None:
        self.total = self.total.to(x.device) + x.detach().abs().amax().double()
        self.count += 1

    def largest(self, bits: int) -> Tensor:
        return self.total / max(self.count, 1)


class Histogram:
    """How many magnitudes fall into each bin, over all inputs; zeros, which every range holds, do not count."""

    def __init__(self) -> None:
        self.counts = torch.zeros(_BINS, dtype=torch.int64)
        self.top = torch.zeros((), dtype=torch.float64)

    def observe(self, x: Tensor) -> None:
        magnitudes = x.detach().abs().float().flatten()
        counts = torch.bincount(magnitudes.view(torch.int32) >> _SHIFT, minlength=_BINS)
        counts[0] -= (magnitudes == 0).sum()
        self.counts = self.counts.to(x.device) + counts
        self.top = torch.maximum(self.top.to(x.device), magnitudes.amax().double())

    def found(self) -> tuple[Tensor, Tensor]:
        """(the end of each bin, at most the largest magnitude seen, fp64 [bins]; the counts, int64 [bins]).

        On the host, where sums do not depend on how a GPU orders them."""
        starts = torch.arange(1, _BINS + 1, dtype=torch.int64).clamp_max(0x7F800000 >> _SHIFT) << _SHIFT
        ends = starts.to(torch.int32).view(torch.float32).double()
        return torch.minimum(ends, self.top.cpu()), self.counts.cpu()


class Percentile(Histogram):
    """The least bin's end that so many percent of the magnitudes do not exceed."""

    def __init__(self, percentile: float) -> None:
        super().__init__()
        self.percentile = percentile

    def largest(self, bits: int) -> Tensor:
        edges, counts = self.found()
        below = counts.cumsum(0)
        needed = torch.ceil(below[-1].double() * (self.percentile / 100))
        return edges[torch.searchsorted(below.double(), needed).clamp_max(_BINS - 1)]


class SquaredError(Histogram):
    """The bin's end at which quantization has the least expected squared error.

    Within the range a magnitude that rounds to 0 loses itself, another a twelfth of a squared step in the mean; beyond
    the range it loses what it exceeds it by.
    """

    def largest(self, bits: int) -> Tensor:
        edges, counts = self.found()
        magnitudes = (edges + torch.cat([edges.new_zeros(1), edges[:-1]])) / 2
        number, first, second = ((counts * magnitudes**power).cumsum(0) for power in range(3))
        step = edges / qmax(bits)
        zero = torch.searchsorted(edges, step / 2, right=True) - 1
        lost = torch.where(zero < 0, 0.0, second[zero.clamp_min(0)])
        rounded = (number - torch.where(zero < 0, 0.0, number[zero.clamp_min(0)])) * step.square() / 12
        clipped = (second[-1] - second) - 2 * edges * (first[-1] - first) + edges.square() * (number[-1] - number)
        error = torch.where(counts > 0, lost + rounded + clipped, float("inf"))
        return edges[error.argmin()]


def make_range(method: str, percentile: float) -> Range | None:
    """The range that `method` names; None for "max", which the layer itself follows."""
    if method == "average":
        return Average()
    if method == "percentile":
        return Percentile(percentile)
    return SquaredError() if method == "mse" else None
