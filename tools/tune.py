"""Measures configs for this GPU: `sparseq_kernels/tuned/<gpu>-triton<version>.json`, by which the kernels then run.

    python -m tools.tune [--minutes 3] [--out DIR]

For each product it times candidates against the config that the rules give, alternately, after checking what they
compute. A candidate is kept if it wins by more than noise. The same command continues where it was interrupted.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import triton

from bench.check import WrongResultError
from bench.clock import Call, Clock, CudaClock, first_line
from bench.common import ROOT, commit, smallest_asked, words, write_json
from bench.program import run_program
from bench.target import KINDS, Target
from sparseq import set_backend
from sparseq.terminal import shown
from sparseq_kernels.triton.runtime import tuned
from sparseq_kernels.triton.runtime.device import current
from sparseq_kernels.triton.runtime.gemm_config import GemmConfig, use_config
from tools.tune_cases import (
    OPERATIONS,
    Inputs,
    Product,
    by_the_rules,
    candidates,
    describe,
    expected_key,
    forget,
    make_inputs,
    make_run,
    products,
)

# A config is kept whose time is below this share of the rules' config's, with the whole of its interval.
WINS_BELOW = 0.98
FIRST_ROUNDS, LAST_ROUNDS = 3, 21
SECONDS_A_SAMPLE = 5e-4
RULE = "by the rules"
# So many in a row, and something is wrong with the GPU.
MOST_FAILURES = 5


@dataclass
class Found:
    """What a tuned file holds, and how many candidates came to nothing in this run."""

    configs: list[dict[str, Any]] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    unable: int = 0
    wrong: int = 0

    @classmethod
    def read(cls, path: Path, device: str) -> "Found":
        """What an earlier run left; nothing where the file is of another device or cannot be read."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            same = content["device"] == device and content["triton"] == triton.__version__
            return cls(content["configs"], content["unchanged"]) if same else cls()
        except (OSError, ValueError, KeyError):
            return cls()

    def done(self) -> set[str]:
        return {config["of"] for config in self.configs} | set(self.unchanged)

    def write(self, path: Path, device: str) -> None:
        head = {"device": device, "triton": triton.__version__, "torch": torch.__version__, "commit": commit()}
        date = time.strftime("%Y-%m-%d", time.gmtime())
        write_json(path, {**head, "date": date, "configs": self.configs, "unchanged": self.unchanged})


def tune_product(product: Product, target: Target, clock: Clock, found: Found) -> str:
    """Measures one product, adds what it found to `found`, and says it in a line."""
    sets = [make_inputs(product, target) for _ in range(clock.sets(product.bytes))]
    with by_the_rules() as asked:
        forget()
        by_rule = sets[0].run()
        sets[0].check(by_rule, by_rule)
        if len(set(asked)) != 1:
            raise RuntimeError(f"its config is looked up for {len(set(asked))} products, not one")
        configs = _sound(candidates(product, asked[0], current(), target), sets[0], by_rule, found)
        calls = {RULE: [one.run for one in sets]}
        calls |= {str(number): [_by(config, one) for one in sets] for number, config in enumerate(configs)}
        times = clock.alternate(calls, 1 if target.smallest else FIRST_ROUNDS).comparison
        best = min(calls, key=lambda name: times.time(name).median)
        if best == RULE:
            found.unchanged.append(str(product))
            taken = f"{1e6 * times.time(RULE).median:.1f} us"
            return f"{product}: {taken}, the rules' config is the fastest of {len(calls)}"
        last = clock.alternate({name: calls[name] for name in (RULE, best)}, 1 if target.smallest else LAST_ROUNDS)
    ratio, config = last.comparison.ratio(best, RULE), configs[int(best)]
    taken = f"{1e6 * last.comparison.time(best).median:.1f} us"
    if ratio.high >= WINS_BELOW:
        found.unchanged.append(str(product))
        return f"{product}: nothing beats the rules' config by more than noise ({ratio})"
    sizes = dict(zip(("kind", *tuned.SIZES), asked[0], strict=True))
    found.configs.append({**sizes, **describe(config), "ratio": round(ratio.median, 4), "of": str(product)})
    return f"{product}: {taken}, {ratio} of the rules' time by {config}"


def _by(config: GemmConfig, inputs: Inputs) -> Call:
    def run() -> torch.Tensor:
        with use_config(config):
            return inputs.run()

    return run


def _sound(configs: Sequence[GemmConfig], inputs: Inputs, by_rule: torch.Tensor, found: Found) -> list[GemmConfig]:
    """Those of the configs that run here and compute what they should."""
    sound = []
    for config in configs:
        try:
            inputs.check(_by(config, inputs)(), by_rule)
            sound.append(config)
        except WrongResultError:
            found.wrong += 1
        except Exception:  # A tile too large fails in the compiler, or when it is launched, each in its own way.
            found.unable += 1
    return sound


def tune(ops: Sequence[str], target: Target, seconds: float, folder: Path) -> int:
    """Measures for `seconds`, writing after each product; returns how many products failed."""
    end = time.monotonic() + seconds
    device = torch.cuda.get_device_name() if target.kind == "cuda" else target.kind
    path = folder / f"{words(device)}-triton{triton.__version__}.json"
    found, clock = Found.read(path, device), target.clock()
    # Many candidates for few seconds: a sample need not be long.
    if isinstance(clock, CudaClock):
        clock.SECONDS_A_SAMPLE = SECONDS_A_SAMPLE
    left = [product for product in products(ops, target) if str(product) not in found.done()]
    failed = in_a_row = 0
    for number, product in enumerate(left):
        if time.monotonic() > end or in_a_row == MOST_FAILURES:
            print(f"{len(left) - number} products left: the same command continues with them")
            break
        try:
            print(tune_product(product, target, clock, found), flush=True)
            in_a_row = 0
        except Exception as error:
            failed, in_a_row = failed + 1, in_a_row + 1
            print(f"{product}: {shown(first_line(error))}", flush=True)
        found.write(path, device)
    kept = f"{len(found.configs)} configs, {len(found.unchanged)} products as the rules have them"
    lost = f"{found.unable} candidates did not run here, {found.wrong} were wrong, {failed} products failed"
    print(f"{path}: {kept}; {lost}")
    return failed


def warm(ops: Sequence[str], target: Target, part: int, parts: int) -> None:
    """Compiles every `parts`-th candidate into Triton's cache on disk, so that measuring need not wait for it."""
    chosen = [one for one in products(ops, target) if target.smallest or one.rank == (False, False)]
    seen: set[tuple[Any, ...]] = set()
    # Few tokens first, of those that are compiled alike.
    for product in sorted(chosen, key=lambda one: one.M):
        run: Call | None = None
        for config in candidates(product, expected_key(product), current(), target):
            key = (*compiled_for(product), product.inputs % config.block_k == 0, config)
            if key in seen:
                continue
            seen.add(key)
            if len(seen) % parts == part:
                run = run or make_run(product, target)
                with contextlib.suppress(Exception), use_config(config):
                    run()


def compiled_for(product: Product) -> tuple[Any, ...]:
    """The properties of a product, beside the config and the depth, for which Triton compiles a kernel anew."""
    return product.op, product.skinny, product.M == 1, product.outputs > product.inputs


def warm_in_parallel(ops: Sequence[str], target: Target, jobs: int, seconds: float) -> None:
    """`warm` in `jobs` processes; those that take longer than `seconds` are ended."""
    command = [sys.executable, "-m", "tools.tune", "--op", ",".join(ops), "--device", target.kind, "--warm"]
    end = time.monotonic() + seconds
    running = [subprocess.Popen([*command, f"{job}/{jobs}"], cwd=ROOT) for job in range(jobs)]
    for process in running:
        try:
            process.wait(timeout=max(0.1, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.terminate()
            process.wait()


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Measures configs for this GPU.")
    parser.add_argument("--op", default=",".join(OPERATIONS), help="which ops, separated by commas")
    parser.add_argument("--minutes", type=float, default=3.0, help="how long, compiling included")
    parser.add_argument("--out", type=Path, metavar="DIR", default=tuned.FOLDER, help="folder of the tuned file")
    parser.add_argument("--device", choices=KINDS[1:], help="cuda; or the interpreter, to show that all of it runs")
    parser.add_argument("--jobs", type=int, default=min(8, (os.cpu_count() or 2) // 2), help="processes that compile")
    parser.add_argument("--warm", metavar="I/N", help="only compile, the I-th of N parts")
    given = parser.parse_args(argv)
    ops = given.op.split(",")
    if unknown := [op for op in ops if op not in OPERATIONS]:
        parser.error(f"unknown op {unknown[0]!r}: configs are for {', '.join(OPERATIONS)}")
    target, end = Target.of(given.device or "cuda", smallest_asked()), time.monotonic() + 60 * given.minutes
    set_backend("triton")
    if given.warm:
        part, parts = map(int, given.warm.split("/"))
        warm(ops, target, part, parts)
        return 0
    if given.jobs:
        warm_in_parallel(ops, target, given.jobs, 60 * given.minutes / 3)
    return 1 if tune(ops, target, end - time.monotonic(), given.out) else 0


if __name__ == "__main__":
    run_program(main)
