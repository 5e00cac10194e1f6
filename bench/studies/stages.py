"""Where the time of a fused encoder goes on a CPU, step by step, beside the least that each step's operations take.

    python -m bench.studies.stages [--threads N] [--smallest] [--out DIR]

The native code is built with a clock between its steps. A floor is a step's operations at the rate of the same code on
operands in the nearest cache, and for steps that compute little, the bytes that they move at the rate of a copy.
"""

import ctypes
import time
from collections.abc import Sequence
from statistics import median
from typing import Any

import torch
from torch import nn

import sparseq
from bench.common import arguments, finish
from bench.program import run_program
from sparseq_kernels.cpu import native
from sparseq_kernels.instruction_sets import SETS, InstructionSet, instruction_set, use_instruction_set

LAYERS, HIDDEN, HEADS, FEED_FORWARD = 6, 384, 12, 1536  # MiniLM-L6
SHAPES = ((1, 16), (1, 128), (8, 128))  # (sentences, tokens)
SPARSITIES, PATTERN = (0.0, 0.8), "4x4"
# In the order of native/stages.h: what its clock tells apart, and its rates.
STAGES = ("quantization", "products", "product with GELU", "attention", "LayerNorm and quantization")
PANELS, BLOCKS, FLOATS, GELUS, COPIES = range(5)
COPIED = 32 * 1024  # floats: about what a step leaves in the second cache for the next one


def with_clock() -> InstructionSet:
    """The instruction set in use, with a clock between steps."""
    used = SETS[instruction_set()]
    return InstructionSet(f"{used.name} with a clock", (*used.flags, "-DSPARSEQ_STAGES"), used.needs, used.vnni)


def rates() -> list[float]:
    """A thread's operations a second, by native/stages.h."""
    function = native.library().sparseq_rate
    function.argtypes, function.restype = (ctypes.c_int32, ctypes.c_int64), ctypes.c_double
    return [function(kind, COPIED) for kind in range(5)]


def floors(
    rate: Sequence[float], batch: int, tokens: int, sparsity: float, hidden: int, wide: int, layers: int
) -> list[float]:
    """Seconds of one thread for each of STAGES."""
    rows, kept = batch * tokens * layers, 1 - sparsity
    products = rate[BLOCKS if sparsity else PANELS] / kept
    operand = 0.25 if native.library().sparseq_panel_columns() >= 64 else 0.5  # of a float
    return [
        rows * (hidden + wide) * (1 + operand) / 2 / rate[COPIES],
        rows * (4 * hidden**2 + hidden * wide) / products,
        rows * hidden * wide / products + rows * wide / rate[GELUS],
        2 * rows * tokens * hidden / rate[FLOATS],
        2 * rows * hidden * (3 + operand) / 2 / rate[COPIES],
    ]


def make_model(sparsity: float, small: bool) -> nn.Module:
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    shape = (1, 32, 2, 64) if small else (LAYERS, HIDDEN, HEADS, FEED_FORWARD)
    names = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size")
    plain = BertModel(BertConfig(**dict(zip(names, shape, strict=True))), add_pooling_layer=False)
    settings: dict[str, Any] = {"sparsity": sparsity, "pattern": PATTERN} if sparsity else {}
    return sparseq.pack(sparseq.convert(plain.eval(), **settings))


def measure(model: nn.Module, batch: int, tokens: int, sparsity: float, rounds: int) -> dict[str, Any]:
    config: Any = model.config
    threads = torch.get_num_threads()
    ids = torch.randint(0, config.vocab_size, (batch, tokens))
    found: list[list[float]] = []
    with use_instruction_set(with_clock().name), torch.inference_mode():
        clock = (ctypes.c_double * len(STAGES)).in_dll(native.library(), "sparseq_stages")
        model(ids)
        for _ in range(rounds):
            before, began = list(clock), time.perf_counter()
            model(ids)
            took = time.perf_counter() - began
            stages = [(now - then) / threads for now, then in zip(clock, before, strict=True)]
            found.append([*stages, took - sum(stages), took])
        sizes = config.hidden_size, config.intermediate_size, config.num_hidden_layers
        least = [seconds / threads for seconds in floors(rates(), batch, tokens, sparsity, *sizes)]
    seconds = [median(column) for column in zip(*found, strict=True)]
    weights = f"{sparsity:.0%} of {PATTERN} blocks removed" if sparsity else "dense"
    cells = {"sentences x tokens": f"{batch} x {tokens}", "weights": weights}
    for name, took, floor in zip(STAGES, seconds, least, strict=False):
        cells[name] = f"{1e3 * took:.2f} ({1e3 * floor:.2f})"
    cells |= {"embeddings and Python": f"{1e3 * seconds[-2]:.2f}", "all": f"{1e3 * seconds[-1]:.2f}"}
    print("\n".join(f"{name:24} {cell}" for name, cell in cells.items()) + "\n", flush=True)
    names = (*STAGES, "rest", "all")
    case = {"batch": batch, "tokens": tokens, "sparsity": sparsity}
    return {
        "case": case,
        "seconds": dict(zip(names, seconds, strict=True)),
        "floors": dict(zip(STAGES, least, strict=True)),
        "cells": cells,
    }


def main(argv: Sequence[str] | None = None) -> int:
    given = arguments("Where a fused encoder's time goes, in ms, and in brackets the floor.", 41, argv)
    if (reason := native.why_not()) is not None:
        print(f"nothing to measure: {reason}")
        return 1
    clocked = with_clock()
    SETS[clocked.name] = clocked
    try:
        rows = [
            measure(model, batch, tokens, sparsity, given.rounds)
            for sparsity in SPARSITIES
            for model in [make_model(sparsity, given.smallest)]
            for batch, tokens in ([(2, 4)] if given.smallest else SHAPES)
        ]
    finally:
        del SETS[clocked.name]
    finish("stages", rows, {"instruction set": instruction_set(), "model": "MiniLM-L6's sizes"}, given)
    return 0


if __name__ == "__main__":
    run_program(main)
