"""What a packed weight takes for each pattern and density, and in which format: counted, not timed.

python -m bench.studies.formats [--smallest] [--out DIR]
"""

from collections.abc import Sequence
from typing import Any

import torch

from bench.common import arguments, finish_counted
from bench.program import run_program
from sparseq_kernels.formats import smallest, stored_bytes
from sparseq_kernels.patterns import Pattern
from sparseq_kernels.reference.magnitude_mask import magnitude_mask
from sparseq_kernels.reference.quantize_rows import quantize_rows

SIDE = 768
PATTERNS = ("unstructured", "2:4", "4x4", "16x16", "64x64")
DENSITIES = (1.0, 0.9, 0.75, 0.5, 0.4, 0.25, 0.1)


def cell(levels: torch.Tensor, pattern: str, density: float) -> str:
    """Stored bits a weight and the format chosen; nothing where the pattern does not reach that density."""
    parsed = Pattern.parse(pattern)
    if 1 - density > parsed.max_sparsity:
        return ""
    [mask] = magnitude_mask([levels.float()], 1 - density, pattern)
    block = parsed.block if parsed.kind == "block" else (1, 1)
    packed = smallest(levels * mask, mask, block, 8)
    return f"{8 * stored_bytes(packed) / levels.numel():.2f} {packed.name}"


def rows(smallest_alone: bool) -> list[dict[str, Any]]:
    torch.manual_seed(0)
    levels, _ = quantize_rows(torch.randn(SIDE, SIDE), 8)
    densities = DENSITIES[3:4] if smallest_alone else DENSITIES
    found = []
    for pattern in PATTERNS:
        cells = {"pattern": pattern} | {f"{density:.0%} kept": cell(levels, pattern, density) for density in densities}
        found.append({"case": {"pattern": pattern}, "cells": cells})
    return found


def main(argv: Sequence[str] | None = None) -> int:
    given = arguments("Bits a weight and the format for each pattern and density.", 1, argv)
    found = rows(given.smallest)
    for row in found:
        print("  ".join(f"{value:>24}" for value in row["cells"].values()))
    finish_counted("formats", found, {"rows": SIDE, "columns": SIDE}, given)
    return 0


if __name__ == "__main__":
    run_program(main)
