"""The tests marked `processor`, run as on other processors: `python tests/processors.py [--jobs N]`.

oneDNN, torch and native code are held to older instruction sets, the training runs to fp32 and to bf16, torch to one
thread and to two, and products of floats to other orders of summation (see `summation`). Each pass is a process of its
own, because all of these are read once. A line a pass, what failed, and the counts of all; the exit code is 1 if
anything failed.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
COUNT = re.compile(r"(\d+) (passed|failed|errors?|skipped|xfailed|xpassed)")


@dataclass(frozen=True)
class InstructionSet:
    """What oneDNN, torch and native code may use at most. flag: of /proc/cpuinfo, without which the processor would
    fault."""

    onednn: str = ""
    torch: str = ""
    flag: str = ""
    native: str = ""

    def environment(self) -> dict[str, str]:
        set_to = {
            "ONEDNN_MAX_CPU_ISA": self.onednn,
            "ATEN_CPU_CAPABILITY": self.torch,
            "SPARSEQ_INSTRUCTION_SET": self.native,
        }
        return {name: value for name, value in set_to.items() if value}


# ATEN_CPU_CAPABILITY is obeyed blindly: torch runs the code that it names, whether the processor has it or not.
SETS = {
    "as it is": InstructionSet(),
    "AVX2": InstructionSet("AVX2", "avx2", "avx2", "avx2"),
    "AVX-512 without VNNI": InstructionSet("AVX512_CORE", "avx512", "avx512f", "avx512"),
    "portable C": InstructionSet("SSE41", "default", native="portable"),
}


# Sets every switch.
EVERYTHING = InstructionSet("AVX2", "avx2", "avx2", "avx2")


@dataclass(frozen=True)
class Pass:
    """One run of the marked tests. summation: the number that orders the terms of products; 0 leaves torch's."""

    instructions: str
    precision: str
    threads: int
    summation: int = 0

    def __str__(self) -> str:
        order = f", order of summation {self.summation}" if self.summation else ""
        return f"{self.instructions}, {self.precision}, {self.threads} thread{'s' * (self.threads > 1)}{order}"

    def environment(self) -> dict[str, str]:
        order = {"SPARSEQ_TEST_SUMMATION": str(self.summation)} if self.summation else {}
        return {
            **SETS[self.instructions].environment(),
            "SPARSEQ_TEST_PRECISION": self.precision,
            "OMP_NUM_THREADS": str(self.threads),
            **order,
        }


PASSES = (
    Pass("AVX2", "fp32", 2),
    Pass("AVX2", "bf16", 1),
    Pass("AVX-512 without VNNI", "fp32", 1),
    Pass("AVX-512 without VNNI", "bf16", 2),
    Pass("portable C", "fp32", 1),
    Pass("portable C", "bf16", 2),
    Pass("as it is", "fp32", 1, summation=1),
    Pass("as it is", "bf16", 2, summation=2),
)


def missing(one: Pass) -> str:
    """The flag that this processor lacks for a pass, or nothing. Without /proc/cpuinfo every flag is missing."""
    flag = SETS[one.instructions].flag
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text(encoding="utf-8").split() if cpuinfo.exists() else []
    return "" if not flag or flag in flags else flag


def marked_files() -> list[str]:
    """The files with marked tests: to import all the others takes longer than most tests."""
    found = [path for path in (ROOT / "tests").rglob("test_*.py") if "triton" not in path.relative_to(ROOT).parts]
    return sorted(str(path) for path in found if "mark.processor" in path.read_text(encoding="utf-8"))


def run(one: Pass, arguments: Sequence[str]) -> tuple[int, str, float]:
    """(exit code, output, seconds) of a pass."""
    switches = (*EVERYTHING.environment(), "SPARSEQ_TEST_SUMMATION")
    inherited = {name: value for name, value in os.environ.items() if name not in switches}
    marked = "processor and not slow and not exhaustive"
    command = [sys.executable, "-m", "pytest", "-q", "-m", marked, "-p", "no:cacheprovider"]
    began = time.monotonic()
    done = subprocess.run(
        [*command, *(arguments or marked_files())],
        cwd=ROOT, env={**inherited, **one.environment()}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr, time.monotonic() - began


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tests/processors.py", description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1, help="passes at a time (default: 1)")
    parser.add_argument("arguments", nargs="*", help="given to pytest, such as a test file")
    given = parser.parse_args(argv)
    began, failed = time.monotonic(), False
    counts: Counter[str] = Counter()
    possible = [one for one in PASSES if not missing(one)]
    with ThreadPoolExecutor(given.jobs) as pool:
        results = dict(zip(possible, pool.map(lambda one: run(one, given.arguments), possible), strict=True))
    for one in PASSES:
        if one not in results:
            print(f"{one}: not run, this processor has no {missing(one)}")
            continue
        code, output, seconds = results[one]
        found = COUNT.findall((output.strip().splitlines() or [""])[-1])
        counts.update({"errors" if word == "error" else word: int(number) for number, word in found})
        said = ", ".join(f"{number} {word}" for number, word in found) or f"pytest ended with code {code}"
        print(f"{one}: {said} in {seconds:.0f} s")
        if code:
            failed = True
            print(output)
    total = ", ".join(f"{number} {word}" for word, number in counts.items()) or "nothing ran"
    print(f"=== {total} in {time.monotonic() - began:.0f}s ===")
    return int(failed or not counts["passed"])


if __name__ == "__main__":
    raise SystemExit(main())
