"""How fast a kernel could be at most: its operations over the rate of the units that do them, or its fewest bytes over
the memory's bandwidth, whichever takes longer.

The fewest bytes are each input read once and each output written once. Rates come from datasheets, of products without
sparsity, or are measured in the run: neither a library's product nor a copy reaches what its datasheet says.

    python -m bench.roofline [--device cuda] [--out FILE]      measures them
"""

import argparse
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.clock import Clock
from bench.common import smallest_asked, write_json
from bench.target import KINDS, Target

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


# A copy of a GiB, and a product of 8192 x 8192 x 8192: large enough to fill any GPU. (values, side) of the smallest.
SIZES = (1 << 30, 8192)
SMALLEST = (1 << 16, 64)


def measured(clock: Clock, device: torch.device, smallest: bool = False) -> tuple[Peaks | None, dict[str, Any]]:
    """(what a device copy and torch's own products reach here, the same as JSON with the reason for what is missing).

    int8 is None where `torch._int_mm` does not run: then there are no measured peaks, only the JSON.
    """
    count, side = SMALLEST if smallest else SIZES
    source, target = (torch.ones(count, dtype=torch.int8, device=device) for _ in range(2))
    found: dict[str, Any] = {"copy_bytes": count, "side": side}

    def rate(name: str, amount: float, call: Callable[[], object]) -> None:
        try:
            seconds = clock.alternate({name: [call]}, 3 if smallest else 15).comparison.time(name)
            found[name] = amount / seconds.median
        except RuntimeError as error:
            found[f"no_{name}"] = str(error).splitlines()[0]

    rate("bandwidth", 2.0 * count, lambda: target.copy_(source))
    for name, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
        rate(name, 2.0 * side**3, _product(torch.mm, a, b.t()))
    a, b = (torch.randint(-127, 128, (side, side), device=device, dtype=torch.int8) for _ in range(2))
    rate("int8", 2.0 * side**3, _product(torch._int_mm, a, b.t()))
    known = {unit: found.get(unit) for unit in ("int8", "bf16", "fp32", "bandwidth")}
    return (None if None in known.values() else Peaks(**known)), found  # type: ignore[arg-type]


def _product(run: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor) -> Callable[[], Tensor]:
    return lambda: run(a, b)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="What a copy and torch's own products reach on this device.")
    parser.add_argument("--device", choices=KINDS, help="a GPU if there is one")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where the numbers go as JSON, too")
    given = parser.parse_args(argv)
    target = Target.of(given.device, smallest_asked())
    _, found = measured(target.clock(), target.device, target.smallest)
    if given.out:
        write_json(given.out, found)
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
