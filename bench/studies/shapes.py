"""A packed layer's call at over 200 shapes, beside fp32 `nn.Linear` and torch's bare int8 product: is it ever slower?

    python -m bench.studies.shapes [--rounds N] [--threads N] [--smallest] [--out DIR]

The int8 product is a module too. It gets integers, and gives sums: neither quantizing its input nor scaling counts
against it. Where torch has no fast one (see `sparseq_kernels.cpu.int8_matmul`), only small cases of it are timed.
"""

import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bench.check import require_equal
from bench.common import arguments, finish
from bench.program import run_program
from sparseq.models import SIZES
from sparseq.nn import QuantSparseLinear
from sparseq.timing import Comparison, alternate
from sparseq_kernels import use_backend
from sparseq_kernels.cpu.int8_matmul import why_not_int_mm

OURS, LINEAR, PRODUCT = "sparseq", "fp32 nn.Linear", "torch._int_mm alone"
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
ODD_ROWS = (1, 3, 16, 37, 128, 1000)
# Inputs and outputs that no BERT's layers have: heads and poolers, primes, single ones, vocabularies.
ODD = (
    (1, 1),
    (1, 768),
    (768, 1),
    (768, 2),
    (1024, 3),
    (7, 13),
    (31, 127),
    (127, 31),
    (5, 3079),
    (3079, 5),
    (769, 769),
    (60, 64),
    (64, 3072),
    (3072, 64),
    (384, 384),
    (384, 1536),
    (1536, 384),
    (384, 1152),
    (768, 30522),
)
MOST_PRODUCTS = 2**32
MOST_PRODUCTS_IN_A_LOOP = 2**20


class Product(nn.Module):
    """torch's int8 product alone: int8 [M, K] -> int32 [M, N]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.randint(-127, 128, (outputs, inputs), dtype=torch.int8).t())

    def forward(self, x: Tensor) -> Tensor:
        return torch._int_mm(x, self.weight)

    def is_right(self, x: Tensor, rows: Tensor) -> bool:
        """Whether these rows of a product are: of some dimensions of 1 torch returns what was in memory."""
        return torch.equal(self(x)[rows].double(), x[rows].double() @ self.weight.double())


def shapes(smallest: bool) -> Iterator[tuple[int, int, int]]:
    """(rows, inputs, outputs)."""
    if smallest:
        yield from ((1, 768, 2), (5, 31, 127))
        return
    layers = [
        layer
        for hidden in sorted({size.hidden for size in SIZES.values()})
        for layer in ((hidden, hidden), (hidden, 4 * hidden), (4 * hidden, hidden))
    ]
    for rows, these in ((ROWS, layers), (ODD_ROWS, ODD)):
        for inputs, outputs in these:
            yield from ((M, inputs, outputs) for M in rows if M * inputs * outputs <= MOST_PRODUCTS)


def measure(M: int, inputs: int, outputs: int, rounds: int) -> dict[str, Any]:
    torch.manual_seed(0)
    linear, x = nn.Linear(inputs, outputs), torch.randn(M, inputs)
    layer = QuantSparseLinear.from_linear(linear).eval().pack()
    q, product = torch.randint(-127, 128, (M, inputs), dtype=torch.int8), Product(inputs, outputs)
    run = {OURS: lambda: layer(x), LINEAR: lambda: linear(x)}
    some = torch.tensor(sorted({0, M // 2, M - 1}))
    wanted = why_not_int_mm() is None or M * inputs * outputs <= MOST_PRODUCTS_IN_A_LOOP
    if wanted and product.is_right(q, some):
        run[PRODUCT] = lambda: product(q)
    with torch.inference_mode():
        with use_backend("reference"):
            expected = layer(x[some])
        require_equal(OURS, layer(x)[some], expected)
        # One thread's own time is without that of other processes.
        clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
        times = alternate(run, rounds, warmup=2, clock=clock)
    return row(M, inputs, outputs, times)


def row(M: int, inputs: int, outputs: int, times: Comparison) -> dict[str, Any]:
    """better: which of the others took the least time, and ours over it."""
    others = [name for name in times.samples if name != OURS]
    better = min(others, key=lambda name: times.time(name).median)
    print(f"{M} x {inputs} -> {outputs}: {times.ratio(OURS, better)} of {better}", flush=True)
    return {
        "case": {"layer": f"{inputs} -> {outputs}", "M": M},
        **times.as_dict([(OURS, name) for name in others]),
        "better": better,
    }


def main(argv: Sequence[str] | None = None) -> int:
    given = arguments("Packed layers of many shapes, beside fp32 and torch's int8 product.", 15, argv)
    rows = [measure(*shape, given.rounds) for shape in shapes(given.smallest)]
    finish("shapes", rows, {"int_mm": why_not_int_mm() or "fast"}, given)
    return 0


if __name__ == "__main__":
    run_program(main)
