"""Methods that find the range of a layer's inputs from batches."""

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
    """Observes inputs; `largest` is then the end of the range as a 0-dim tensor, for the given bits."""

    def observe(self, x: Tensor) -> None: ...

    def largest(self, bits: int) -> Tensor: ...


class Average:
    """The mean over the inputs of each input's largest magnitude."""

    def __init__(self) -> None:
        self.total, self.count = torch.zeros((), dtype=torch.float64), 0

    def observe(self, x: Tensor) -> None:
        self.total = self.total.to(x.device) + x.detach().abs().amax().double()
        self.count += 1

    def largest(self, bits: int) -> Tensor:
        return self.total / max(self.count, 1)


class Histogram:
    """Counts of magnitudes by bin, over all inputs; zeros do not count, because every range contains them."""

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
        """(the ends of the bins, at most the largest magnitude seen, fp64 [bins]; the counts, int64 [bins]).

        On the CPU, where sums do not depend on the order of a GPU's threads.
        """
        starts = torch.arange(1, _BINS + 1, dtype=torch.int64).clamp_max(0x7F800000 >> _SHIFT) << _SHIFT
        ends = starts.to(torch.int32).view(torch.float32).double()
        return torch.minimum(ends, self.top.cpu()), self.counts.cpu()


class Percentile(Histogram):
    """The least end of a bin that the given percentage of the magnitudes does not exceed."""

    def __init__(self, percentile: float) -> None:
        super().__init__()
        self.percentile = percentile

    def largest(self, bits: int) -> Tensor:
        edges, counts = self.found()
        below = counts.cumsum(0)
        needed = torch.ceil(below[-1].double() * (self.percentile / 100))
        return edges[torch.searchsorted(below.double(), needed).clamp_max(_BINS - 1)]


class SquaredError(Histogram):
    """The end of a bin at which quantization has the least expected squared error.

    Within the range, the error of a magnitude that rounds to 0 is the magnitude itself; for others the mean squared
    error is a twelfth of the squared step. Beyond the range the error is the excess.
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
    """The range for `method`; None for "max", which the layer finds itself."""
    if method == "average":
        return Average()
    if method == "percentile":
        return Percentile(percentile)
    return SquaredError() if method == "mse" else None
