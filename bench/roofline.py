"""How fast a kernel could be at most: its operations over the rate of the units that do them, or its fewest bytes over
the memory's bandwidth, whichever takes longer.

The fewest bytes are each input read once and each output written once. Rates come from datasheets, of products without
sparsity, or are measured in the run (`ceilings`): no library's product and no copy reaches what its datasheet says.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

# Of the arithmetic that a product is done in.
UNITS = {torch.int8: "int8", torch.bfloat16: "bf16", torch.float16: "bf16", torch.float32: "fp32"}


@dataclass(frozen=True)
class Peaks:
    """Operations a second (a multiplication and an addition are two) by unit, and bytes a second, read and written."""

    int8: float
    bf16: float
    fp32: float
    bandwidth: float


# By the name that torch gives a GPU. Only what its maker's datasheet says plainly: another GPU has no floor.
_H100_ARITHMETIC = (1979e12, 989.4e12, 66.9e12)
DATASHEET = {
    "NVIDIA H100 80GB HBM3": Peaks(*_H100_ARITHMETIC, 3.35e12),
    "NVIDIA H100 PCIe": Peaks(1513e12, 756e12, 51e12, 2.0e12),
    "NVIDIA H200": Peaks(*_H100_ARITHMETIC, 4.8e12),
    "NVIDIA A100-SXM4-80GB": Peaks(624e12, 312e12, 19.5e12, 2.039e12),
    "NVIDIA A100-SXM4-40GB": Peaks(624e12, 312e12, 19.5e12, 1.555e12),
    "NVIDIA A100 80GB PCIe": Peaks(624e12, 312e12, 19.5e12, 1.935e12),
    "NVIDIA L4": Peaks(242.5e12, 121e12, 30.3e12, 0.3e12),
    "NVIDIA GeForce RTX 4090": Peaks(660.6e12, 165.2e12, 82.6e12, 1.008e12),
    "AMD Instinct MI300X": Peaks(2614.9e12, 1307.4e12, 163.4e12, 5.3e12),
}


@dataclass(frozen=True)
class Phase:
    """A part of a case that ends before the next begins: `operations` by unit, `bytes` read and written."""

    operations: tuple[tuple[str, float], ...]
    bytes: int

    def seconds(self, peaks: Peaks) -> tuple[float, str]:
        """(the floor, "operations" or "bytes": which of them it is)"""
        arithmetic = sum(count / getattr(peaks, unit) for unit, count in self.operations)
        memory = self.bytes / peaks.bandwidth
        return max((arithmetic, "operations"), (memory, "bytes"))


@dataclass(frozen=True)
class Work:
    """What a case must do at least."""

    phases: tuple[Phase, ...]

    @property
    def operations(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for phase in self.phases:
            for unit, count in phase.operations:
                found[unit] = found.get(unit, 0) + count
        return found

    @property
    def bytes(self) -> int:
        return sum(phase.bytes for phase in self.phases)

    def floor(self, peaks: Peaks) -> tuple[float, str]:
        """(seconds, what the longest phase is bound by)"""
        parts = [phase.seconds(peaks) for phase in self.phases]
        return sum(seconds for seconds, _ in parts), max(parts)[1]

    def as_dict(self, seconds: float | None, device: str, ceilings: Peaks | None) -> dict[str, Any]:
        """JSON: operations, bytes, and for each source of rates the floor and which fraction of it `seconds` reach."""
        row: dict[str, Any] = {"operations": self.operations, "bytes": self.bytes}
        for source, peaks in (("datasheet", DATASHEET.get(device)), ("measured", ceilings)):
            if peaks is not None:
                floor, bound = self.floor(peaks)
                row[source] = {"seconds": floor, "bound": bound}
                if seconds:
                    row[source]["fraction"] = floor / seconds
        return row


def moves(*tensors: tuple[int, torch.dtype]) -> int:
    """Bytes of tensors, each given as how many values of which dtype."""
    return sum(count * dtype.itemsize for count, dtype in tensors)


def work(tensors: Iterable[tuple[int, torch.dtype]], *products: tuple[torch.dtype, float]) -> Work:
    """One phase that reads or writes `tensors`, and does products of (dtype, multiplications)."""
    return Work((Phase(tuple((UNITS[dtype], 2.0 * count) for dtype, count in products), moves(*tensors)),))


def joined(*parts: Work) -> Work:
    """One after the other."""
    return Work(tuple(phase for part in parts for phase in part.phases))


def linear_step(M: int, N: int, K: int, product: torch.dtype, x: torch.dtype, weight: torch.dtype) -> Work:
    """Forward and backward of a layer [M, K] -> [M, N]: the forward's product in `product`, the backward's two in the
    type of x. Gradients come in the types of what they are of."""
    y, inputs, weights, bias = (M * N, x), (M * K, x), (N * K, weight), (N, weight)
    forward = work([inputs, weights, bias, y], (product, M * N * K))
    return joined(forward, work([y, inputs, weights, inputs, weights, bias], (x, 2.0 * M * N * K)))


def roof(row: Mapping[str, Any]) -> dict[str, Any] | None:
    """The floor of a row's time: by the datasheet's rates where they are known, else by the measured ones."""
    for source in ("datasheet", "measured"):
        if found := row.get("floor", {}).get(source):
            return {**found, "source": "rates of the datasheet" if source == "datasheet" else "rates measured here"}
    return None
