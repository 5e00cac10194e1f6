"""The `compare` fixture, by which every kernel benchmark checks, times and records, and the cases that it runs over."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.ceilings import Ceilings, measured
from bench.clock import Clock, CpuClock, first_line
from bench.common import smallest_asked, write_result
from bench.kernels.cases import OURS, Case, Compare
from bench.measure import measure
from bench.target import KINDS, Target
from sparseq import InputError, backend, set_backend

_recorded: dict[str, list[dict[str, Any]]] = {}
_TARGET = pytest.StashKey[Target]()
_DEADLINE = pytest.StashKey["Deadline"]()
_SETTINGS = pytest.StashKey[dict[str, Any]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--record", action="store_true", help="write bench/results/<op>-<cpu or gpu>.json, if all went well"
    )
    parser.addoption("--results-to", type=Path, metavar="DIR", help="write them there after each case, failed ones too")
    parser.addoption(
        "--device", choices=KINDS, help="cuda if there is a GPU, else cpu; interpreter: a GPU's on the CPU"
    )
    parser.addoption("--seconds", type=float, help="leave out what does not begin in this time, shared among the ops")


def pytest_configure(config: pytest.Config) -> None:
    try:
        target = Target.of(config.getoption("--device"), smallest_asked())
        if target.kind == "interpreter":
            set_backend("triton")
    except InputError as error:
        raise pytest.UsageError(str(error)) from error
    config.stash[_TARGET] = target


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test for each case of the file's benchmark; one that is skipped where it runs on another device only."""
    target, benchmark = metafunc.config.stash[_TARGET], metafunc.module.BENCHMARK
    if (reason := benchmark.why_not(target)) is not None:
        metafunc.parametrize("case", [pytest.param(None, marks=pytest.mark.skip(reason=reason), id="none")])
    else:
        cases = benchmark.cases(target)
        metafunc.parametrize("case", cases, ids=[str(case).replace(", ", "-").replace(" ", "") for case in cases])


@pytest.fixture
def target(request: pytest.FixtureRequest) -> Target:
    return request.config.stash[_TARGET]


@pytest.fixture(scope="session")
def clock(request: pytest.FixtureRequest) -> Clock:
    return request.config.stash[_TARGET].clock()


@pytest.fixture(scope="session")
def ceilings(request: pytest.FixtureRequest, clock: Clock) -> Ceilings | None:
    """What a copy and torch's products reach in this run."""
    target = request.config.stash[_TARGET]
    settings = request.config.stash.setdefault(_SETTINGS, {})
    if not target.gpu:
        settings |= {"seconds_a_case": CpuClock.SECONDS_A_CASE, "clock": clock.name}
    found, settings["ceilings"] = measured(clock, target)
    return found


class Deadline:
    """Shares `seconds` among the ops: each has an equal part of what is left when it begins."""

    def __init__(self, seconds: float | None, ops: int) -> None:
        self.end = None if seconds is None else time.monotonic() + seconds
        self.ops = ops
        self.ends: dict[str, float] = {}

    def over(self, op: str) -> bool:
        if self.end is None:
            return False
        now = time.monotonic()
        if op not in self.ends:
            self.ends[op] = now + max(0.0, self.end - now) / max(1, self.ops - len(self.ends))
        return now > self.ends[op]


def pytest_collection_finish(session: pytest.Session) -> None:
    ops = {item.path for item in session.items}
    session.config.stash[_DEADLINE] = Deadline(session.config.getoption("--seconds"), len(ops))


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    torch.manual_seed(0)
    yield


@pytest.fixture
def compare(request: pytest.FixtureRequest, target: Target, clock: Clock, ceilings: Ceilings | None) -> Compare:
    """compare(case): checks and times a case, and records it.

    On a CPU, where pytest-benchmark is installed, its table shows the op's time, with ratios in `extra_info`.
    """
    op = request.module.BENCHMARK.op
    config = request.config

    def run(case: Case) -> None:
        if config.stash[_DEADLINE].over(op):
            config.stash[_SETTINGS]["left_out"] = config.stash[_SETTINGS].get("left_out", 0) + 1
            pytest.skip("the time that --seconds gives is used up")
        rows = _recorded.setdefault(op, [])
        try:
            row, calls = measure(case, target, clock, ceilings)
            rows.append({"case": dict(case.described), **row})
        except Exception as error:
            rows.append({"case": dict(case.described), "failed": first_line(error)})
            raise
        finally:
            if folder := config.getoption("--results-to"):
                _write(config, op, folder)
        if not target.gpu and config.pluginmanager.hasplugin("benchmark"):
            benchmark = request.getfixturevalue("benchmark")
            benchmark.group = op
            benchmark.extra_info |= {f"time / {ratio['to']}": ratio["median"] for ratio in row["ratios"]}
            rounds = 1 if target.smallest else CpuClock.ROUNDS[0]
            with case.mode():
                benchmark.pedantic(calls[OURS], rounds=rounds, iterations=1)

    return run


def _write(config: pytest.Config, op: str, folder: Path | None) -> Path:
    target = config.stash[_TARGET]
    known: dict[str, Any] = config.stash.get(_SETTINGS, {})
    settings = known | {"device": target.kind, "backend": backend(target.device.type)}
    return write_result(op, _recorded[op], settings, folder, gpu=target.kind == "cuda")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Writes the result files that --record asks for; none of a run in which anything failed."""
    if session.config.getoption("--record") and exitstatus == 0:
        for op in _recorded:
            print(f"\nwritten: {_write(session.config, op, None)}")


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """The ratios, which pytest-benchmark's table does not show; none of a run that was for correctness alone."""
    if config.stash[_TARGET].smallest:
        return
    for op, rows in _recorded.items():
        terminalreporter.section(f"{op}: time of {OURS} / time of its peers (below 1 is faster)")
        for row in rows:
            case = "  ".join(str(value) for value in row["case"].values())
            if "failed" in row:
                terminalreporter.write_line(f"{case:44} {row['failed']}")
                continue
            ratios = "   ".join(
                f"{r['to']} {r['median']:.2f} [{r['low']:.2f}, {r['high']:.2f}]"
                for r in row["ratios"]
                if r["of"] == OURS
            )
            terminalreporter.write_line(f"{case:44} {1e3 * row['seconds'][OURS]['median']:9.4f} ms   {ratios}")
            for name, why in row.get("absent", {}).items():
                terminalreporter.write_line(f"{'':44} without {name}: {why}")
