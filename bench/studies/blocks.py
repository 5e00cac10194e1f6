"""What a CPU gains from each pattern of pruning: the 4x4 blocks that hold values, counted, and a packed layer's time.

    python -m bench.studies.blocks [--rounds N] [--threads N] [--smallest] [--out DIR]

Native code multiplies by blocks of 4 x 4 where few enough of them hold values, whatever the pattern is. Weights are
random, pruned by magnitude; times are ratios to the layer's that is not pruned.
"""

import copy
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from bench.common import arguments, finish
from bench.program import run_program
from sparseq.nn import PackedLinear, QuantSparseLinear
from sparseq.timing import alternate
from sparseq_kernels.patterns import Pattern
from sparseq_kernels.reference.magnitude_mask import magnitude_mask

INPUTS, OUTPUTS = 768, 3072
PATTERNS = ("4x4", "8x4", "16x4", "32x32", "1x4", "4x1", "2:4", "unstructured")
SPARSITIES = (0.25, 0.5, 0.8, 0.9)  # the first: as many blocks as are stored at most
ROWS = (1, 4, 16, 128)
BLOCK = 4
DENSE = "dense"


def pruned(linear: nn.Linear, pattern: str, sparsity: float) -> PackedLinear:
    layer = QuantSparseLinear.from_linear(copy.deepcopy(linear), pattern=pattern)
    layer.set_mask(magnitude_mask([layer.weight.detach()], sparsity, pattern)[0])
    packed: PackedLinear = layer.eval().pack()
    return packed


def share_of_blocks(layer: PackedLinear) -> float:
    """The part of the 4x4 blocks that holds values."""
    N, K = layer.out_features, layer.in_features
    blocks = layer.quantized_values().reshape(N // BLOCK, BLOCK, K // BLOCK, BLOCK)
    return blocks.ne(0).any(3).any(1).float().mean().item()


def measure(linear: nn.Linear, pattern: str, sparsity: float, rows: Sequence[int], rounds: int) -> dict[str, Any]:
    dense, layer = QuantSparseLinear.from_linear(linear).eval().pack(), pruned(linear, pattern, sparsity)
    share = share_of_blocks(layer)
    cells = {"pattern": pattern, "pruned": f"{sparsity:.0%}", "4x4 blocks that hold values": f"{share:.0%}"}
    found = {}
    # One thread's own time is without that of other processes.
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    for M in rows:
        x = torch.randn(M, linear.in_features)
        run = {DENSE: lambda x=x: dense(x), pattern: lambda x=x: layer(x)}
        with torch.inference_mode():
            times = alternate(run, rounds, warmup=2, clock=clock)
        found[M] = times.as_dict([(pattern, DENSE)])
        cells[f"M = {M}"] = f"{times.ratio(pattern, DENSE).median:.2f}"
    print("  ".join(f"{cell:>13}" for cell in cells.values()), flush=True)
    case = {"pattern": pattern, "sparsity": sparsity, "layer": f"{linear.in_features} -> {linear.out_features}"}
    return {"case": case, "share": share, "times": found, "cells": cells}


def main(argv: Sequence[str] | None = None) -> int:
    given = arguments("What a CPU gains from each pattern of pruning.", 11, argv)
    torch.manual_seed(0)
    linear = nn.Linear(64, 64) if given.smallest else nn.Linear(INPUTS, OUTPUTS)
    nn.init.normal_(linear.weight)
    rows = ROWS[:1] if given.smallest else ROWS
    found = [
        measure(linear, pattern, sparsity, rows, given.rounds)
        for pattern in PATTERNS
        for sparsity in SPARSITIES
        if sparsity <= Pattern.parse(pattern).max_sparsity
    ]
    finish("blocks", found, {"layer": f"{linear.in_features} -> {linear.out_features}"}, given)
    return 0


if __name__ == "__main__":
    run_program(main)
