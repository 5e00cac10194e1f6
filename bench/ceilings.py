"""What a copy and torch's own products reach on this machine: the rates that the roofline is drawn with.

    python -m bench.ceilings [--device cuda] [--out FILE]

On a GPU the bandwidth is that of a large copy. On a CPU it depends on which cache holds the data, so that it is
measured for several sizes, and a case is held against the size that it moves itself.
"""

import argparse
import ctypes
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.clock import Clock
from bench.common import smallest_asked, write_json
from bench.kernels.peers import dynamic_linear
from bench.packages import CURRENT
from bench.program import run_program
from bench.roofline import Peaks
from bench.target import KINDS, Target
from sparseq_kernels.cpu import native
from sparseq_kernels.cpu.int8_matmul import why_not_int_mm
from sparseq_kernels.cpu.linear import NativeLinear
from sparseq_kernels.encoder import EncoderLinear

# (bytes copied, side of the square products): large enough to fill any GPU.
GPU_SIZES, CPU_SIZES, SMALLEST = (1 << 30, 8192), (1 << 27, 1024), (1 << 16, 64)
# A CPU's first size, above which a call's own overhead counts little; each other is four times the one before.
CPU_LEAST_BYTES = 1 << 17
CPU_PRODUCTS = 50  # rounds, some seconds
UNITS = ("int8", "bf16", "fp32", "bandwidth")


@dataclass(frozen=True)
class Ceilings:
    """peaks: of the largest size. bandwidths: bytes moved -> bytes a second, in rising order; empty for a GPU."""

    peaks: Peaks
    bandwidths: Mapping[int, float] = field(default_factory=dict)

    def at(self, size: int) -> Peaks:
        """The rates for a case that moves `size` bytes: the bandwidth is that of the next smaller size measured, which
        is the higher one where a cache ends between."""
        below = [rate for moved, rate in self.bandwidths.items() if moved <= size] or [*self.bandwidths.values()][:1]
        return replace(self.peaks, bandwidth=below[-1]) if below else self.peaks


def measured(clock: Clock, target: Target) -> tuple[Ceilings | None, dict[str, Any]]:
    """(the ceilings, the same as JSON with the reason for what is missing).

    None where one of torch's products does not run: then there is only the JSON.
    """
    gpu = target.device.type != "cpu"
    copied, side = SMALLEST if target.smallest else GPU_SIZES if gpu else CPU_SIZES
    found: dict[str, Any] = {"copy_bytes": copied, "side": side}
    rounds = 3 if target.smallest else 15 if gpu else 7
    # A CPU's speed may change from one second to the next, by other programs and its own clock.
    products = rounds if gpu or target.smallest else CPU_PRODUCTS

    def rate(name: str, amount: float, *calls: Callable[[], object], rounds: int = rounds) -> float | None:
        """The highest that one of the calls reached, each of which does `amount`."""
        try:
            times = clock.alternate({str(i): [call] for i, call in enumerate(calls)}, rounds).comparison
            found[name] = amount / min(min(samples) for samples in times.samples.values())
        except RuntimeError as error:
            found[f"no_{name}"] = str(error).splitlines()[0]
        return found.get(name)

    source, copy = (torch.ones(copied, dtype=torch.int8, device=target.device) for _ in range(2))
    rate("bandwidth", 2.0 * copied, lambda: copy.copy_(source))
    bandwidths: dict[int, float] = {}
    if not gpu:
        size = CPU_LEAST_BYTES
        while size <= 2 * copied:
            # A product reads more than it writes: the faster of a copy and a sum.
            values, half, other = torch.ones(size // 4), torch.ones(size // 8), torch.ones(size // 8)
            copying = partial(ctypes.memmove, half.data_ptr(), other.data_ptr(), size // 2)
            if reached := rate("of_size", float(size), values.sum, partial(half.copy_, other), copying):
                bandwidths[size] = reached
            size *= 4
        found.pop("of_size", None)
        # Less memory is not slower: where a size says so, other work or a call's overhead was measured with it.
        for more, less in pairwise(reversed(list(bandwidths))):
            bandwidths[less] = max(bandwidths[less], bandwidths[more])
        found["bandwidths"] = {str(moved): value for moved, value in bandwidths.items()}
    for name, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        a, b = (torch.randn(side, side, device=target.device, dtype=dtype) for _ in range(2))
        rate(name, 2.0 * side**3, _product(torch.mm, a, b.t()), rounds=products)
    a, b = (torch.randint(-127, 128, (side, side), device=target.device, dtype=torch.int8) for _ in range(2))
    torchs = [_product(torch._int_mm, a, b.t())] if gpu or why_not_int_mm() is None else []
    rate("int8", 2.0 * side**3, *torchs, *([] if gpu else _other_int8_products(a, b)), rounds=products)
    if any(unit not in found for unit in UNITS):
        return None, found
    return Ceilings(Peaks(*(found[unit] for unit in UNITS)), bandwidths), found


def _other_int8_products(a: Tensor, b: Tensor) -> list[Callable[[], object]]:
    """torch._int_mm is a plain loop on processors without VNNI: our own product, also of a weight that is packed
    already, and torch's dynamically quantized layer."""
    ones, floats = torch.ones(len(b)), b.float()
    products: list[Callable[[], object]] = [CURRENT.bind("int8_linear", a, b, ones, None, ones, "none", torch.float32)]
    if native.why_not() is None:
        products.append(partial(NativeLinear(EncoderLinear(b, ones, None)), a.float()))
    with suppress(ImportError, RuntimeError, AttributeError):
        products.append(partial(dynamic_linear(floats, ones), a.float()))
    return products


def _product(run: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor) -> Callable[[], Tensor]:
    return lambda: run(a, b)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="What a copy and torch's own products reach on this device.")
    parser.add_argument("--device", choices=KINDS, help="a GPU if there is one")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU (default: 1)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where the numbers go as JSON, too")
    given = parser.parse_args(argv)
    torch.set_num_threads(given.threads)
    target = Target.of(given.device, smallest_asked())
    _, found = measured(target.clock(), target)
    if given.out:
        write_json(given.out, found)
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    run_program(main)
