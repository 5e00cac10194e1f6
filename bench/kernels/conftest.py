"""The `compare` fixture, by which every kernel benchmark checks, times and records."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import torch

from bench.common import alternate, smallest_asked, write_result
from bench.kernels.cases import OURS

SECONDS_A_CASE = 0.6
ROUNDS = (7, 41)
Compare = Callable[[Mapping[str, Any], Callable[[], None], Mapping[str, Callable[[], Any]]], None]

_recorded: dict[str, list[dict[str, Any]]] = {}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record", action="store_true", help="write bench/results/<op>-<cpu>.json")


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    torch.manual_seed(0)
    yield


@pytest.fixture
def compare(benchmark: Any, request: pytest.FixtureRequest) -> Compare:
    """compare(case, check, candidates): runs `check`, which raises if what is to be timed is wrong, and only then times
    the candidates alternately. `candidates[OURS]` is the op; the others are peers, to which its ratio is taken.

    pytest-benchmark's own table shows the op's time; the ratios are in its `extra_info`.
    """
    op = request.module.__name__.rpartition(".")[2].removeprefix("bench_")

    def run(case: Mapping[str, Any], check: Callable[[], None], candidates: Mapping[str, Callable[[], Any]]) -> None:
        check()
        peers = [name for name in candidates if name != OURS]
        if smallest_asked():
            times = alternate(candidates, 1, shortest=0.0)
        else:
            trial = alternate(candidates, 1)
            once = sum(max(trial.time(name).median, 2e-3) for name in candidates)
            times = alternate(candidates, max(ROUNDS[0], min(ROUNDS[1], round(SECONDS_A_CASE / once))))
        row = {"case": dict(case), **times.as_dict((OURS, peer) for peer in peers)}
        _recorded.setdefault(op, []).append(row)
        benchmark.group = op
        benchmark.extra_info |= {f"time / {ratio['to']}": ratio["median"] for ratio in row["ratios"]}
        benchmark.pedantic(candidates[OURS], rounds=1 if smallest_asked() else ROUNDS[0], iterations=1)

    return run


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Writes the result files that --record asks for; none of an op when anything failed."""
    if session.config.getoption("--record") and exitstatus == 0:
        for op, rows in _recorded.items():
            print(f"\nwritten: {write_result(op, rows, {'seconds_a_case': SECONDS_A_CASE})}")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The ratios, which pytest-benchmark's table does not show; none of a run that was for correctness alone."""
    if smallest_asked():
        return
    for op, rows in _recorded.items():
        terminalreporter.section(f"{op}: time of {OURS} / time of its peers (below 1 is faster)")
        for row in rows:
            case = "  ".join(str(value) for value in row["case"].values())
            ratios = "   ".join(f"{r['to']} {r['median']:.2f} [{r['low']:.2f}, {r['high']:.2f}]" for r in row["ratios"])
            terminalreporter.write_line(f"{case:44} {1e3 * row['seconds'][OURS]['median']:9.3f} ms   {ratios}")
