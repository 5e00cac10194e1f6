"""The command `python -m bench`: lists the kernel benchmarks, and runs one.

python -m bench list
python -m bench run int8_linear --shape 8192x1024x4096 --dtype bf16 --device cuda --peers --plot
python -m bench run packed_linear --shape 384x384 --rows 1,16,1024 --base main
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from bench import base, console, plot
from bench.ceilings import Ceilings, measured
from bench.check import WrongResultError
from bench.clock import Clock, CpuClock
from bench.common import describe, smallest_asked, write_json, write_result
from bench.frames import frames
from bench.kernels import OPS, benchmark
from bench.kernels.cases import OURS, Benchmark, Case, Shape
from bench.measure import ALONE, EVERY_PEER, Peers, measure
from bench.packages import Libraries
from bench.program import run_program
from bench.target import KINDS, Target
from sparseq import InputError, backend, set_backend
from sparseq.terminal import shown

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(prog="python -m bench", description="Benchmarks of sparseq's kernels.")
    found.add_argument("--list", action="store_true", help="as the command list")
    commands = found.add_subparsers(dest="command", metavar="COMMAND")
    commands.add_parser("list", help="list the ops with a benchmark, the form of their shapes, and what is compared")
    run = commands.add_parser("run", help="check and time an op", description="Checks an op, then times it.")
    run.add_argument("op", metavar="OP", help="an op that `list` names")
    run.add_argument("--shape", action="append", metavar="MxKxN", help="sizes; may be given several times")
    run.add_argument("--rows", metavar="M,M,...", help="sweep the number of rows; a shape may then leave its M out")
    run.add_argument("--dtype", choices=DTYPES, help="of activations (default: bf16 on a GPU, fp32 on a CPU)")
    run.add_argument("--device", choices=KINDS, help="default: a GPU if there is one")
    run.add_argument("--threads", type=_count, default=1, metavar="N", help="of the CPU (default: 1)")
    run.add_argument(
        "--peers", nargs="?", const="", metavar="NAME,...", help="compare with what else does the same (default: all)"
    )
    run.add_argument("--base", metavar="REV", help="compare with another commit of this repository, in one process")
    run.add_argument("--seconds", type=_positive, metavar="S", help="how long a CPU measures a case (default: 0.6)")
    run.add_argument(
        "--plot", nargs="?", const="", metavar="FILE", help="draw time and fraction of the roofline (default: OP.svg)"
    )
    run.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    run.add_argument("--record", action="store_true", help="write bench/results/OP-<machine>.json, all peers compared")
    run.add_argument("--smallest", action="store_true", help="one round of the smallest case, for correctness alone")
    return found


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1")
    return int(text)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return value


def shapes_of(found: Benchmark, given: Sequence[str] | None, rows: str | None, target: Target) -> list[Shape] | None:
    """The shapes that were asked for; None for the default ones. InputError for what is none of this op's."""
    swept = None if rows is None else [_size(part, f"--rows {rows}") for part in rows.split(",")]
    if swept is not None and "M" not in found.dims:
        raise InputError(f"{found.op} has no rows to sweep: its shapes are {found.form}")
    if given is None:
        if swept is None:
            return None
        rest = list(dict.fromkeys(shape[1:] for shape in found.shapes(target)))
        return [(M, *shape) for shape in rest for M in swept]
    shapes: list[Shape] = []
    for text in given:
        shape = tuple(_size(part, f"--shape {text}") for part in text.lower().split("x"))
        if swept is not None:
            if len(shape) == len(found.dims):
                shape = shape[1:]
            shapes += [(M, *shape) for M in swept]
        else:
            shapes.append(shape)
        if len(shapes[-1]) != len(found.dims):
            without = f", or {'x'.join(found.dims[1:])} with --rows" if "M" in found.dims else ""
            raise InputError(f"{found.op} takes shapes {found.form}{without}, and got --shape {text}")
    return shapes


def _size(text: str, given: str) -> int:
    if not (text.isascii() and text.isdecimal()) or not 1 <= int(text) < 2**31:
        raise InputError(f"{shown(given)} has {shown(text)!r} where a whole number of at least 1 belongs")
    return int(text)


def peers_of(given: argparse.Namespace) -> Peers:
    """Which peers are timed: those that have one of the given words in their name; all of them for an empty list."""
    if given.record or given.peers == "":
        return EVERY_PEER
    return Peers(tuple(word.strip().lower() for word in (given.peers or "").split(",") if word.strip()))


def require_folder(path: Path | None, option: str) -> None:
    """InputError unless a file can be written there, before anything is measured."""
    if path is None:
        return
    folder = path.absolute().parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        why = "is not writable" if folder.is_dir() else "does not exist"
        raise InputError(f"{option} cannot write {shown(path)}: the folder {shown(folder)} {why}")
    if path.is_dir():
        raise InputError(f"{option} cannot write {shown(path)}: it is a folder")


def run(given: argparse.Namespace) -> int:
    found = benchmark(given.op)
    if given.record and (given.base or given.shape or given.rows or given.dtype or given.smallest):
        raise InputError("--record writes the default shapes and types of this tree: leave out the other options")
    if given.dtype and not found.takes_dtype:
        raise InputError(f"{given.op} is timed in fp32 alone: leave out --dtype")
    picture = None if given.plot is None else Path(given.plot or f"{given.op}.svg")
    require_folder(picture, "--plot")
    require_folder(given.json, "--json")
    torch.set_num_threads(given.threads)
    target = Target.of(given.device, given.smallest or smallest_asked(), DTYPES.get(given.dtype))
    if target.kind == "interpreter":
        set_backend("triton")
    cases = found.cases(target, shapes_of(found, given.shape, given.rows, target))
    if picture is not None:
        plot.require(picture, cases)
    libraries: Libraries = ALONE
    if given.base:
        other = base.load(given.base)
        libraries = {**ALONE, f"{OURS} at {given.base}": other}
    clock = target.clock()
    if isinstance(clock, CpuClock) and given.seconds:
        clock.SECONDS_A_CASE = given.seconds
    ceilings, rates = measured(clock, target)
    settings = {"device": target.kind, "backend": backend(target.device.type), "dtype": "fp32"}
    if found.takes_dtype:
        settings["dtype"] = NAMES[target.dtype]
    settings |= {"ceilings": rates, "clock": clock.name}
    if given.base:
        settings["base"] = other.revision
    result = {"name": given.op, **describe(target.kind == "cuda"), "settings": settings, "rows": []}
    print("\n".join(console.machine_lines(result)), flush=True)
    for case in cases:
        row = _measured(case, target, clock, ceilings, libraries, peers_of(given))
        result["rows"].append(row)
        print("\n" + "\n".join(console.case_lines(row, f"{given.op}, {case}")), flush=True)
    if given.json:
        write_json(given.json, result)
        print(f"\nwritten: {shown(given.json)}")
    if given.record:
        print(f"\nwritten: {write_result(given.op, result['rows'], settings, gpu=target.kind == 'cuda')}")
    if picture is not None:
        plot.draw(result, picture, console.machine_lines(result)[0])
        print(f"\nwritten: {shown(picture)}")
    return 0


def _measured(
    case: Case,
    target: Target,
    clock: Clock,
    ceilings: Ceilings | None,
    libraries: Libraries,
    peers: Peers,
) -> dict[str, Any]:
    """A row of the results; beside another commit also the Python functions that a call of each enters."""
    torch.manual_seed(0)
    try:
        row, calls = measure(case, target, clock, ceilings, libraries, peers)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, InputError) or not (isinstance(error, MemoryError) or "alloca" in str(error)):
            raise
        raise InputError(f"{case} does not fit into this machine's memory: choose a smaller --shape") from None
    if len(libraries) > 1:
        with case.mode():
            counted = {name: frames(calls[name], library) for name, library in libraries.items()}
        row["frames"] = {name: count._asdict() for name, count in counted.items()}
    return {"case": dict(case.described), **row}


def listing() -> str:
    """A line an op: its name, the form of its shapes, what is compared."""
    lines = [(found.op, found.form, found.text) for found in map(benchmark, OPS)]
    widths = [max(len(line[i]) for line in lines) for i in range(2)]
    return "\n".join(f"{op.ljust(widths[0])}  {form.ljust(widths[1])}  {text}" for op, form, text in lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0; 1 where a result is wrong; 2 for input that cannot be run, with one sentence."""
    command = parser()
    given = command.parse_args(argv)
    if given.list or given.command == "list":
        print(listing())
        return 0
    if given.command is None:
        command.error("say what to do: list, or run OP")
    try:
        return run(given)
    except InputError as error:
        print(f"python -m bench: {shown(error)}", file=sys.stderr)
        return 2
    except WrongResultError as error:
        print(f"python -m bench: {shown(error)}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    run_program(main)
