"""What a call costs on the host, and the first call in a fresh process.

    python -m tools.gpu_host [--device cuda] [--out FILE]

On a GPU a call returns as soon as its kernels are queued: the time until then is the host's, and for few tokens it is
all that a user sees. The first call is timed in processes of its own, the second of which finds Triton's cache on disk
filled by the first.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.common import ROOT, smallest_asked, write_json
from bench.program import run_program
from bench.target import KINDS, Target
from sparseq import pack, set_backend
from sparseq.nn import QuantSparseLinear
from sparseq.timing import Interval

M, WIDTH, SMALLEST_WIDTH = 16, 1024, 64
# Fewer than a GPU's queue holds, or the host would wait for the device.
CALLS, ROUNDS = 200, 11


def layers(target: Target) -> tuple[dict[str, Callable[[Tensor], Tensor]], Tensor]:
    """(a packed layer and a plain one, their input)"""
    width = SMALLEST_WIDTH if target.smallest else WIDTH
    torch.manual_seed(0)
    packed = pack(QuantSparseLinear(width, width)).to(target.device)
    plain = nn.Linear(width, width, dtype=target.dtype, device=target.device)
    return {"packed": packed, "nn.Linear": plain}, torch.randn(M, width, device=target.device, dtype=target.dtype)


def steady(target: Target) -> dict[str, float]:
    """Median seconds that a call of each layer keeps the host."""
    clock = target.clock()
    found, x = layers(target)
    calls, rounds = (2, 1) if target.smallest else (CALLS, ROUNDS)
    medians = {}
    with torch.inference_mode():
        for name, layer in found.items():
            samples = []
            layer(x)
            for _ in range(rounds):
                clock.synchronize()
                start = time.perf_counter()
                for _ in range(calls):
                    layer(x)
                samples.append((time.perf_counter() - start) / calls)
            clock.synchronize()
            medians[name] = Interval.of(samples).median
    return medians


def first_call(target: Target) -> dict[str, float]:
    """Seconds of the packed layer's first call in this process, the GPU awake, and of its second."""
    clock = target.clock()
    found, x = layers(target)
    (x + 1).sum()
    clock.synchronize()
    seconds = []
    with torch.inference_mode():
        for _ in range(2):
            start = time.perf_counter()
            found["packed"](x)
            clock.synchronize()
            seconds.append(time.perf_counter() - start)
    return {"first": seconds[0], "second": seconds[1]}


def in_a_process(target: Target) -> dict[str, float]:
    """`first_call` in a process of its own, and how long that process lived."""
    command = [sys.executable, "-m", "tools.gpu_host", "--device", target.kind, "--first"]
    start = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found | {"process": time.perf_counter() - start}


def measure(target: Target) -> dict[str, Any]:
    cold = in_a_process(target)
    return {"rows": M, "cache_filled": cold, "cache_found": in_a_process(target), "host_seconds": steady(target)}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="What a call costs on the host, and the first one.")
    parser.add_argument("--device", choices=KINDS, help="a GPU if there is one")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where the numbers go as JSON, too")
    parser.add_argument("--first", action="store_true", help="only the first call, in this process")
    given = parser.parse_args(argv)
    target = Target.of(given.device, smallest_asked())
    if target.kind == "interpreter":
        set_backend("triton")
    found = first_call(target) if given.first else measure(target)
    if given.out:
        write_json(given.out, found)
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    run_program(main)
