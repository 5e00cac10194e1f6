"""What a packed layer's call costs on the host before its kernels are queued, part by part, without a GPU.

    python -m bench.studies.host [--rounds N] [--smallest] [--out DIR]

Kernels are compiled for an H100 and not launched (`absent_gpu`): the driver's own part of a launch is not in these
times, and a CPU's allocator stands for the GPU's. A call of `nn.Linear` with one weight is timed beside them: it is all
overhead too, and says how fast this machine's Python is. The first call is taken in fresh processes, with Triton's
cache empty and then filled; Triton finds its cache by a hash of its own files, which it takes once a process.
"""

import ctypes
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from bench.common import ROOT, arguments, finish
from bench.program import run_program
from sparseq import pack
from sparseq.nn import QuantSparseLinear
from sparseq.timing import Comparison, alternate

ARCH = "sm_90"
INPUTS, OUTPUTS = 768, 3072
ROWS = (16, 1024)
MODULE, REPEATED, OP, CHECKS, HOST = "layer", "repeated", "op", "checks", "host function"
ALLOCATION, LINEAR = "torch.empty", "nn.Linear(1, 1)"
# What each time comprises, the outermost first.
PARTS = {
    MODULE: "the packed layer's call",
    REPEATED: "of these: the launch cache, a replay",
    OP: "torch.ops.sparseq.int8_linear, which records nothing",
    CHECKS: "of these: the checks of its arguments",
    HOST: "of these: the Triton backend's function",
    ALLOCATION: "torch.empty of the output",
    LINEAR: "nn.Linear of one weight",
}
# Malloc's settings, by which freed memory stays with the process: a GPU's allocator keeps it, too.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3


def packed_layer() -> nn.Module:
    torch.manual_seed(0)
    model: Any = pack(nn.Sequential(QuantSparseLinear(INPUTS, OUTPUTS)))
    layer: nn.Module = model[0]
    return layer


def parts(M: int) -> dict[str, Callable[[], object]]:
    """A call of each of PARTS, for M rows."""
    from sparseq_kernels.ops.int8_linear import OP as INT8_LINEAR
    from sparseq_kernels.triton.int8_linear import CACHE
    from sparseq_kernels.triton.int8_linear import int8_linear as triton_int8_linear

    layer, x = packed_layer(), torch.randn(M, INPUTS, dtype=torch.bfloat16)
    held: Any = layer
    given = (x, held.quantized_values(), held.scale, held.bias, held.input_scale)
    whole = (*given, "none", None, None)
    CACHE(triton_int8_linear, *whole)
    assert CACHE.captured_shapes(whole[1]) == 1
    linear, one = nn.Linear(1, 1), torch.ones(1, 1)
    return {
        MODULE: lambda: layer(x),
        REPEATED: lambda: CACHE(triton_int8_linear, *whole),
        OP: lambda: torch.ops.sparseq.int8_linear(*given),
        CHECKS: lambda: INT8_LINEAR.check(whole),
        HOST: lambda: triton_int8_linear(*whole),
        ALLOCATION: lambda: torch.empty((M, OUTPUTS), dtype=torch.bfloat16, device=x.device),
        LINEAR: lambda: linear(one),
    }


def steady(M: int, rounds: int, smallest: bool) -> Comparison:
    from tools.absent_gpu import absent_gpu

    with absent_gpu(ARCH, record=False), torch.inference_mode():
        # Samples short enough that the machine's other work leaves most of them alone.
        return alternate(parts(M), rounds, warmup=1 if smallest else 5, shortest=0 if smallest else 1e-3)


def row(M: int, times: Comparison) -> dict[str, Any]:
    found = times.as_dict([(MODULE, LINEAR)])
    cells = {"rows": str(M)} | {name: f"{1e6 * times.time(name).median:.1f}" for name in PARTS}
    return {"case": {"layer": f"{INPUTS} -> {OUTPUTS}", "M": M}, **found, "cells": cells}


def first_call() -> dict[str, float]:
    """Seconds of a packed layer's first call in this process, and of what Triton does before any."""
    start = time.perf_counter()
    from triton.runtime.cache import triton_key

    imported = time.perf_counter()
    triton_key()
    hashed = time.perf_counter()
    from tools.absent_gpu import absent_gpu

    layer, x = packed_layer(), torch.randn(ROWS[0], INPUTS, dtype=torch.bfloat16)
    with absent_gpu(ARCH, record=False), torch.inference_mode():
        before = time.perf_counter()
        layer(x)
        called = time.perf_counter() - before
    return {"import triton": imported - start, "Triton's hash of itself": hashed - imported, "the call itself": called}


def first_calls() -> dict[str, dict[str, float]]:
    """`first_call` in a process that finds Triton's cache empty, and in one that finds it filled by the other."""
    with tempfile.TemporaryDirectory() as cache:
        code = "import json; from bench.studies.host import first_call; print(json.dumps(first_call()))"
        command = [sys.executable, "-c", code]
        environment = os.environ | {"TRITON_CACHE_DIR": cache}
        found = {}
        for name in ("cache empty", "cache filled"):
            done = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True)
            found[name] = json.loads(done.stdout)
    return found


def keep_freed_memory() -> None:
    """As far as this system's malloc can be told to."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    mallopt(_TRIM_THRESHOLD, 1 << 30)
    mallopt(_MMAP_THRESHOLD, 1 << 30)


def main(argv: Sequence[str] | None = None) -> int:
    given = arguments("A packed layer's call on the host, without a GPU.", 300, argv)
    keep_freed_memory()
    rows = [row(M, steady(M, given.rounds, given.smallest)) for M in ROWS[: 1 if given.smallest else None]]
    for name, text in PARTS.items():
        times = ", ".join(f"{1e6 * found['seconds'][name]['median']:.1f}" for found in rows)
        print(f"{times:>14} us  {name}: {text}")
    first = {} if given.smallest else first_calls()
    for name, seconds in first.items():
        print(f"{name}: " + ", ".join(f"{part} {value:.2f} s" for part, value in seconds.items()))
    finish("host", rows, {"rounds": given.rounds, "for": ARCH, "first": first}, given)
    return 0


if __name__ == "__main__":
    run_program(main)
