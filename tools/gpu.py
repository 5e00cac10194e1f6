"""Everything that needs a GPU, in one command and a limited time: tests, memory check, tuning, benchmarks.

    python -m tools.gpu --out DIR [--minutes 8] [--only STEP ...] [--dry-run]
    python -m tools.gpu --unpack DIR/results.json     writes its results to bench/results

Each step runs in processes of its own, with a share of the time that is left; one that fails or takes too long is
reported, and the rest continues. What is known is written after each step. --dry-run runs all of it on the CPU, in
Triton's interpreter and at the smallest sizes: it shows that every line runs, and its times mean nothing.
"""

import argparse
import glob
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.common import RESULTS, ROOT, commit, machine, versions, write_json
from bench.goals import goals
from bench.program import run_program
from sparseq import InputError
from sparseq.terminal import shown
from tools.gpu_results import page, read_json, unpack

TUNED = ROOT / "kernels" / "sparseq_kernels" / "tuned"
PYTHON = sys.executable
PYTEST = (PYTHON, "-m", "pytest", "-q", "-p", "no:cacheprovider")
# Of a dry run: a file, so that the others need not be imported, and a test in it.
FEW_TESTS = ("tests/triton/test_triton_int8_linear.py", "-k", "test_sums_are_exact and 5-7-63")
REST = ("quantize_rows", "gelu_quantize_rows", "layer_norm_quantize_rows", "fake_quant", "int8_embedding")
SPARSE = (
    "block_sparse_int8_linear",
    "bitmask_int8_linear",
    "semi_structured_int8_linear",
    "masked_linear",
    "magnitude_mask",
)
LOG_BYTES = 1 << 20
WORKERS = 14


@dataclass(frozen=True)
class Step:
    """share: of the time, in proportion to the shares of the steps that are still to come, which get what one does not
    need. command: given the seconds
    that it has; a string instead says why the step is left out. more: added to the environment."""

    name: str
    share: float
    command: Callable[[float], Sequence[str] | str]
    more: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Outcome:
    name: str
    seconds: float
    outcome: str
    failed: bool


class Run:
    """The steps' outcomes, and the files that come of them. work: a folder of its own. out: what is handed back."""

    def __init__(self, out: Path, work: Path, dry: bool) -> None:
        self.out, self.work, self.dry = out, work, dry
        self.results = work / "results"
        self.device = "interpreter" if dry else "cuda"
        # What is tuned here is what the benchmarks after it run by; a dry run leaves the repository alone.
        self.tuned = work / "tuned" if dry else TUNED
        self.outcomes: list[Outcome] = []
        out.mkdir(parents=True, exist_ok=True)
        self.results.mkdir(parents=True, exist_ok=True)

    def environment(self, more: Mapping[str, str]) -> dict[str, str]:
        """For a step: this repository importable, and nothing of a pytest that this may run under."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        paths = [str(ROOT), str(ROOT / "kernels"), *filter(None, [os.environ.get("PYTHONPATH")])]
        own = {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}
        if self.dry:
            own |= {"TRITON_INTERPRET": "1", "SPARSEQ_BENCH": "ci", "OMP_NUM_THREADS": "1"}
        return inherited | own | dict(more)

    def take(self, step: Step, seconds: float) -> None:
        """Runs a step for so long at most, and notes how it went."""
        command = step.command(seconds)
        if isinstance(command, str):
            self.outcomes.append(Outcome(step.name, 0.0, f"left out: {command}", False))
            return
        start = time.monotonic()
        log = self.work / f"{step.name}.log"
        with log.open("w", encoding="utf-8") as file:
            process = subprocess.Popen(
                list(command),
                cwd=ROOT,
                env=self.environment(step.more),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            outcome = _wait(process, seconds)
        failed = outcome != "done"
        self.outcomes.append(Outcome(step.name, time.monotonic() - start, outcome, failed))

    def write(self) -> str:
        """Writes all that is known to `out`; returns the short table."""
        found: dict[str, Any] = {"commit": commit(), "steps": [vars(one) for one in self.outcomes]}
        for name in ("machine", "ceilings", "host"):
            found[name] = read_json(self.work / f"{name}.json")
        found["results"] = [read_json(path) for path in sorted(self.results.glob("*.json"))]
        write_json(self.out / "results.json", found)
        notes = {name: json.dumps(found[name]) for name in ("machine", "ceilings", "host") if found[name]}
        steps = [(one.name, one.outcome, f"{one.seconds:.0f}") for one in self.outcomes]
        (self.out / "summary.md").write_text(page(steps, notes, self.results), encoding="utf-8")
        (self.out / "log.txt").write_text(self._logs(), encoding="utf-8")
        for path in [self.work / "tests.xml", *self.tuned.glob("*.json")]:
            if path.exists():
                shutil.copy(path, self.out / path.name)
        lines = [f"{name:14} {seconds:>5} s  {outcome}" for name, outcome, seconds in steps]
        return "\n".join([*lines, "", goals(self.results)])

    def _logs(self) -> str:
        """Every step's log, the end of a long one."""
        parts = []
        for one in self.outcomes:
            path = self.work / f"{one.name}.log"
            text = path.read_text(encoding="utf-8", errors="replace")[-LOG_BYTES:] if path.exists() else ""
            parts.append(f"==== {one.name}: {one.outcome} ====\n{text}\n")
        return "".join(parts)


def _wait(process: "subprocess.Popen[bytes]", seconds: float) -> str:
    """ "done", or what went wrong; ends the process and what it started when the time is over."""
    try:
        code = process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, number)
                process.wait(timeout=5)
                break
            except ProcessLookupError:
                break
            except subprocess.TimeoutExpired:
                continue
        return f"stopped after {seconds:.0f} s"
    return "done" if code == 0 else f"failed with exit code {code}"


def steps(run: Run) -> list[Step]:
    """All of them, in order."""
    files = {name: str(run.work / f"{name}.json") for name in ("machine", "ceilings", "host")}
    device = ("--device", run.device)
    return [
        Step("machine", 15, lambda _: (PYTHON, "-m", "tools.gpu", "--machine", files["machine"])),
        Step("ceilings", 15, lambda _: (PYTHON, "-m", "bench.ceilings", *device, "--out", files["ceilings"])),
        Step("tests", 200, lambda _: _tests(run)),
        Step("memcheck", 100, lambda _: _memcheck(run), {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}),
        Step("tune", 100, lambda seconds: _tune(run, seconds)),
        Step("int8_linear", 70, lambda seconds: _benchmarks(run, seconds, "int8_linear")),
        Step("qat_linear", 55, lambda seconds: _benchmarks(run, seconds, "qat_linear")),
        Step("sparse", 95, lambda seconds: _benchmarks(run, seconds, *SPARSE)),
        Step("compiled", 70, lambda seconds: _benchmarks(run, seconds, "int8_linear_compiled")),
        Step("encoder", 70, lambda seconds: _benchmarks(run, seconds, "encoder")),
        Step("host", 30, lambda _: (PYTHON, "-m", "tools.gpu_host", *device, "--out", files["host"])),
        Step("rest", 60, lambda seconds: _benchmarks(run, seconds, *REST)),
    ]


def _tests(run: Run) -> list[str]:
    # A line a test, so that the log of a run that is stopped names those that failed.
    selected = FEW_TESTS if run.dry else ("tests/triton",)
    command = [*PYTEST, "-vv", *selected, "--junitxml", str(run.work / "tests.xml"), "--durations", "10"]
    if run.dry:
        return command
    workers = min(WORKERS, os.cpu_count() or 1)
    return [*command, "-n", str(workers)] if importlib.util.find_spec("xdist") else command


def _memcheck(run: Run) -> list[str] | str:
    """The tests marked `memcheck`: those in which a kernel could read or write beyond an end.

    torch's allocator hands out parts of large blocks, and a read beyond a part is none beyond the block: without its
    cache every tensor has a block of its own."""
    if run.dry:
        return ["env", *PYTEST, *FEW_TESTS]
    tests = [*PYTEST, "-v", "tests/triton", "-m", "memcheck"]
    tool = sanitizer()
    return [tool, "--tool", "memcheck", "--error-exitcode", "9", *tests] if tool else "there is no compute-sanitizer"


def sanitizer() -> str | None:
    """The path of NVIDIA's compute-sanitizer."""
    found = shutil.which("compute-sanitizer")
    installed = sorted(glob.glob("/usr/local/cuda*/bin/compute-sanitizer"))
    return found or (installed[0] if installed else None)


def _tune(run: Run, seconds: float) -> list[str]:
    jobs = "1" if run.dry else str(max(1, (os.cpu_count() or 2) - 2))
    minutes = f"{_own(seconds) / 60:.2f}"
    command = [PYTHON, "-m", "tools.tune", "--device", run.device, "--out", str(run.tuned)]
    return [*command, "--minutes", minutes, "--jobs", jobs]


def _own(seconds: float) -> float:
    """For how long a step may begin new cases, so that it ends by itself: without what importing torch takes, and what
    the last case takes."""
    return max(0.5 * seconds, seconds - 15)


def _benchmarks(run: Run, seconds: float, *ops: str) -> list[str]:
    options = ["--device", run.device, "--results-to", str(run.results), "--seconds", f"{_own(seconds):.0f}"]
    return [*PYTEST, *options, *(f"bench/kernels/bench_{op}.py" for op in ops)]


def everything(out: Path, minutes: float, dry: bool, only: Sequence[str] = ()) -> int:
    """Takes all steps, or those named in `only`; returns how many failed. InputError for a step that there is not."""
    end = time.monotonic() + 60 * minutes
    with tempfile.TemporaryDirectory() as work:
        run = Run(out, Path(work), dry)
        left = steps(run)
        names = [step.name for step in left]
        if unknown := sorted({*only} - {*names}):
            raise InputError(f"there is no step {unknown[0]!r}: the steps are {', '.join(names)}")
        left = [step for step in left if not only or step.name in only]
        while left:
            share = left[0].share / sum(step.share for step in left)
            step = left.pop(0)
            run.take(step, max(5.0, (end - time.monotonic()) * share))
            last = run.outcomes[-1]
            print(f"{last.name}: {last.outcome}, {last.seconds:.0f} s", flush=True)
            if last.failed:
                log = (run.work / f"{last.name}.log").read_text(encoding="utf-8", errors="replace")
                print(shown(log[-2000:], lines=True), flush=True)
            table = run.write()
        print(f"\n{table}\nwritten: {', '.join(sorted(path.name for path in out.iterdir()))}")
        return sum(one.failed for one in run.outcomes)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Everything that needs a GPU, in one command.")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for at most 8 files")
    parser.add_argument("--minutes", type=float, default=8.0, help="for all of it")
    parser.add_argument("--only", nargs="+", default=(), metavar="STEP", help="of the steps, such as tests or sparse")
    parser.add_argument("--dry-run", action="store_true", help="on the CPU, to show that every line runs")
    parser.add_argument("--unpack", type=Path, metavar="FILE", help="only write a results.json to bench/results")
    parser.add_argument("--machine", type=Path, metavar="FILE", help="only describe the machine")
    given = parser.parse_args(argv)
    if given.unpack:
        unpack(given.unpack, RESULTS)
        return 0
    if given.machine:
        import torch

        described = {"machine": machine(torch.cuda.is_available()), "versions": versions()}
        write_json(given.machine, described)
        print(json.dumps(described))
        return 0
    if not given.out:
        parser.error("say where the files go: --out DIR")
    try:
        return 1 if everything(given.out, given.minutes, given.dry_run, given.only) else 0
    except InputError as error:
        parser.error(str(error))


if __name__ == "__main__":
    run_program(main)
