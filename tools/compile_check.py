"""Compiles every Triton kernel for GPUs that this machine need not have, and reads the machine code.

    python -m tools.compile_check [--arch sm_90 ...] [--kernel int8_tile_kernel ...] [--jobs N] [--smallest] [--out DIR]

Each op is called as a GPU would be (`compile_cases`), under a driver that compiles and launches nothing
(`absent_gpu`), so that what is compiled is what a GPU would get: the same config, constants, types and alignments. Of
each kernel it is checked that it compiles, fits, keeps everything in registers, multiplies in matrix units, copies
asynchronously and rounds the product before it rounds to an integer. Exits with 1 if one does not, and with 130 if it
is interrupted: Triton keeps what it has compiled, so that the same command continues from there.
"""

import argparse
import itertools
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from importlib import import_module
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any

import torch
import triton

from bench.common import RESULTS, commit, smallest_asked, write_json
from bench.program import run_program
from sparseq_kernels import InputError
from tools import assembly
from tools.absent_gpu import ARCHITECTURES, KIB, absent_gpu
from tools.compile_cases import cases, tuned_cases
from tools.compile_variants import Variant, smallest_set, variants

_ORDER = tuple(itertools.product((True, False), ARCHITECTURES))
# Kernels that one worker compiles before it reports: their code is disassembled together.
CHUNK = 16


@dataclass(frozen=True)
class Found:
    """What came of a variant: its problems, and if it compiled what its code needs and has."""

    variant: Variant
    problems: tuple[str, ...]
    registers: int = 0
    spilled: int = 0
    shared_bytes: int = 0
    matrix: str = ""
    copies: str = ""

    def __str__(self) -> str:
        return f"{self.variant.kernel} for {self.variant.arch} {'; '.join(self.problems)} ({self.variant.text})"


def examine(chunk: Sequence[Variant]) -> list[Found]:
    """Compiles and checks variants of one architecture."""
    arch = chunk[0].arch
    compiled, found = [], []
    with absent_gpu(arch):
        for variant in chunk:
            try:
                compiled.append((variant, getattr(import_module(variant.module), variant.kernel).preload(variant.data)))
            except Exception as error:  # Whatever it is, it is what the check is for.
                found.append(Found(variant, (f"does not compile: {_shortly(error)}",)))
    if ARCHITECTURES[arch].target.backend == "hip":
        texts = [kernel.asm["amdgcn"] for _, kernel in compiled]
    else:
        texts = assembly.nvidia_assembly([kernel for _, kernel in compiled])
    return found + [check(variant, kernel, text) for (variant, kernel), text in zip(compiled, texts, strict=True)]


def _shortly(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip(" ^")]
    return f"{type(error).__name__}: {' / '.join(lines)[-300:]}"


def check(variant: Variant, kernel: Any, text: str) -> Found:
    """kernel: as Triton compiled it. text: its machine code."""
    gpu = ARCHITECTURES[variant.arch]
    amd = gpu.target.backend == "hip"
    used = assembly.amd_resources(text) if amd else assembly.nvidia_resources(kernel.asm["cubin"])
    problems = []
    if kernel.metadata.shared > gpu.shared_bytes:
        has = f"{gpu.shared_bytes / KIB:.0f} KiB"
        problems.append(f"needs {kernel.metadata.shared / KIB:.0f} KiB of shared memory, where a program has {has}")
    if used.spilled or (not amd and assembly.LOCAL_MEMORY.search(text)):
        problems.append(f"spills {used.spilled} bytes a thread to memory")
    ttir = kernel.asm["ttir"]
    product = assembly.product(ttir)
    instructions = assembly.AMD_MATRIX if amd else assembly.NVIDIA_MATRIX
    matrix = {kind: set(pattern.findall(text)) for kind, pattern in instructions.items()}
    copies = set(assembly.COPY.findall(text))
    if product is not None:
        if product.kind is not None and not matrix[product.kind]:
            problems.append(f"has no {product.kind} matrix instruction for its product")
        if not amd and not copies and kernel.metadata.num_stages > 1:
            problems.append("copies nothing asynchronously, though its product has stages")
    if assembly.rounds(ttir):
        source = text if amd else f"{text}\n{kernel.asm['ptx']}"
        if fused := assembly.fused_roundings(source):
            problems.append(f"rounds in {fused} instructions that multiply and add at once")
        elif not assembly.MAGIC.search(text):
            problems.append("rounds, but its rounding was not found in the machine code")
    return Found(
        variant,
        tuple(problems),
        used.registers,
        used.spilled,
        kernel.metadata.shared,
        " ".join(sorted(set().union(*matrix.values()))),
        " ".join(sorted(copies)),
    )


def examine_all(wanted: Sequence[Variant], jobs: int) -> Iterator[Found]:
    """In `jobs` processes, the hungriest first, so that a failure shows early; a line for each chunk that is done. What
    has not begun when this is interrupted is not begun."""
    groups = [[v for v in wanted if v.arch == arch and bool(v.hungry) == hungry] for hungry, arch in _ORDER]
    chunks = [part for group in groups for part in _chunks(group)]
    done, start = 0, time.monotonic()
    # Workers end at once, and silently, when the terminal interrupts them.
    pool = ProcessPoolExecutor(jobs, get_context("spawn"), signal.signal, (signal.SIGINT, signal.SIG_DFL))
    try:
        running = {pool.submit(examine, chunk): chunk for chunk in chunks}
        for finished in as_completed(running):
            try:
                found = finished.result()
            except BrokenProcessPool:
                died = "the compiler died, of this variant or of another that was compiled at the same time"
                found = [Found(variant, (died,)) for variant in running[finished]]
            done += len(found)
            for one in found:
                if one.problems:
                    print(one, flush=True)
            seconds = time.monotonic() - start
            left = (
                f", about {(len(wanted) - done) * seconds / done / 60:.0f} minutes left" if done < len(wanted) else ""
            )
            print(f"{done} of {len(wanted)}, now {found[0].variant.arch}: {seconds:.0f} s{left}", flush=True)
            yield from found
    except KeyboardInterrupt:
        # Else they would end what they have begun, and wait for more from a process that is gone.
        for worker in active_children():
            worker.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _chunks(wanted: list[Variant]) -> list[list[Variant]]:
    return [wanted[i : i + CHUNK] for i in range(0, len(wanted), CHUNK)]


def rows(results: Sequence[Found]) -> list[dict[str, Any]]:
    """For each kernel, and in it for each architecture, the worst of its variants."""
    found, seen = [], {one.variant.arch for one in results}
    architectures = [arch for arch in ARCHITECTURES if arch in seen]
    for kernel in sorted({one.variant.kernel for one in results}):
        worst = {}
        for arch in architectures:
            group = [one for one in results if (one.variant.kernel, one.variant.arch) == (kernel, arch)]
            if group:
                worst[arch] = {
                    "variants": len(group),
                    "failing": sum(bool(one.problems) for one in group),
                    "registers": max(one.registers for one in group),
                    "spilled": max(one.spilled for one in group),
                    "shared_kib": round(max(one.shared_bytes for one in group) / KIB, 1),
                    "matrix": _words(one.matrix for one in group),
                    "copies": _words(one.copies for one in group),
                }
        found.append(
            {"case": {"kernel": kernel}, "architectures": worst, "cells": _cells(kernel, worst, architectures)}
        )
    return found


def _words(texts: Iterator[str]) -> str:
    return " ".join(sorted({word for text in texts for word in text.split()}))


def _cells(kernel: str, worst: dict[str, dict[str, Any]], architectures: Sequence[str]) -> dict[str, str]:
    """A line of the table in docs/results/compile.md, without an entry for what a kernel is not for."""
    cells = {"kernel": f"`{kernel}`", "compiled": str(max(one["variants"] for one in worst.values()))}
    cells |= dict.fromkeys(architectures, "")
    for arch, one in worst.items():
        parts = [str(one["registers"]), f"{one['shared_kib']:.0f} KiB", one["matrix"]]
        cells[arch] = ", ".join(part for part in parts if part)
    return cells


def summary(found: Sequence[dict[str, Any]]) -> str:
    head = ["kernel", "for", "variants", "failing", "registers", "shared KiB", "spilled", "matrix", "copies"]
    keys = ("variants", "failing", "registers", "shared_kib", "spilled", "matrix", "copies")
    lines = [
        [row["case"]["kernel"], arch, *(str(one[key]) for key in keys)]
        for row in found
        for arch, one in row["architectures"].items()
    ]
    widths = [max(len(line[i]) for line in [head, *lines]) for i in range(len(head))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) for line in [head, *lines])


def write(found: Sequence[dict[str, Any]], settings: dict[str, Any], folder: Path) -> Path:
    """Writes compile-triton<version>.json. It says nothing of the machine, on which nothing in it depends."""
    content = {
        "name": "compile",
        "versions": {"triton": triton.__version__, "torch": torch.__version__},
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "settings": settings,
        "rows": list(found),
    }
    path = folder / f"compile-triton{triton.__version__}.json"
    write_json(path, content)
    return path


def chosen(found: Sequence[Variant], kernels: Sequence[str]) -> list[Variant]:
    """The variants of those kernels; all if none is named. InputError for a kernel that nothing here calls."""
    names = {one.kernel for one in found}
    if unknown := sorted(set(kernels) - names):
        raise InputError(f"no call compiles {', '.join(unknown)}: the kernels are {', '.join(sorted(names))}")
    return [one for one in found if not kernels or one.kernel in kernels]


def advice(failing: Sequence[Found]) -> str:
    """How to compile again what failed, and nothing else."""
    names = {"arch": [one.variant.arch for one in failing], "kernel": [one.variant.kernel for one in failing]}
    words = [f"--{option} {name}" for option, found in names.items() for name in sorted(set(found))]
    return (
        "A kernel that spills or does not fit needs a smaller tile, more warps, fewer loads under way or more parts "
        "(sparseq_kernels/triton/runtime/heuristics.py).\nThese alone again: "
        f"python -m tools.compile_check {' '.join(words)}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Compiles every Triton kernel for absent GPUs; reads the code.")
    parser.add_argument(
        "--arch", "--architecture", action="append", choices=ARCHITECTURES, help="compile for (default: all)"
    )
    parser.add_argument("--kernel", action="append", default=[], metavar="NAME", help="compile it alone (default: all)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes (default: one a core)")
    parser.add_argument(
        "--smallest", action="store_true", help="every kernel and config, but not every type and option"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="where the result file goes, if not results/")
    given = parser.parse_args(argv)
    start = time.monotonic()
    smallest = given.smallest or smallest_asked()
    everything = [one for arch in given.arch or ARCHITECTURES for one in variants(arch, [*cases(), *tuned_cases(arch)])]
    try:
        wanted = chosen(everything, given.kernel)
    except InputError as error:
        parser.error(str(error))
    print(f"triton {triton.__version__}: {len(wanted)} variants of kernels", flush=True)
    if smallest:
        wanted = smallest_set(wanted)
        print(f"of them the smallest set: {len(wanted)}", flush=True)
    try:
        results = list(examine_all(wanted, given.jobs))
    except KeyboardInterrupt:
        print(
            "\ninterrupted: the same command continues from here, for Triton keeps what it has compiled",
            file=sys.stderr,
        )
        return 130
    found = rows(results)
    print(f"\n{summary(found)}\n")
    failing = [one for one in results if one.problems]
    for one in failing:
        print(one)
    print(f"{len(results)} compiled, {len(failing)} of them failing, in {time.monotonic() - start:.0f} s")
    if failing:
        print(advice(failing))
    elif given.out or not (smallest or given.arch or given.kernel):
        settings = {"smallest": smallest, "arch": given.arch or [], "kernel": given.kernel}
        settings |= {"compiled": len(results), "variants": len(everything)}
        print(f"written: {write(found, settings, given.out or RESULTS)}")
    return 1 if failing else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # As where a time limit ends it.
    run_program(main)
