"""One benchmark an op, `bench_OP.py`: its inputs, reference, peers and roofline."""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from sparseq import InputError

if TYPE_CHECKING:
    from bench.kernels.cases import Benchmark

OPS = tuple(sorted(path.stem.removeprefix("bench_") for path in Path(__file__).parent.glob("bench_*.py")))


def benchmark(op: str) -> "Benchmark":
    """The benchmark of that op; InputError where there is none."""
    if op not in OPS:
        raise InputError(f"there is no benchmark of {op!r}: there are {', '.join(OPS)}")
    found: Benchmark = importlib.import_module(f"bench.kernels.bench_{op}").BENCHMARK
    return found
