"""How long calls take where they run: the CPU's by the wall, a GPU's by its own events and by replayed graphs.

A candidate is a sequence of calls that do the same on different memory, one set of inputs each. On a GPU they take
turns, so that the cache does not serve what a real run would read from memory.
"""

import gc
import itertools
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from sparseq.timing import Comparison, alternate

Call = Callable[[], Any]
Candidates = Mapping[str, Sequence[Call]]

# Sets of inputs exceed the cache by this factor, if MOST_SETS do.
CACHE_TIMES = 2
MOST_SETS = 256


@dataclass(frozen=True)
class Times:
    """Times of several candidates.

    comparison: seconds a call on the device. how: by what each was timed ("wall", "thread", "events", "graph").
    call_seconds: what a caller waits for one call of many, the host's part included, where that was taken. notes: why a
    candidate could not be timed as the others.
    """

    comparison: Comparison
    how: Mapping[str, str]
    call_seconds: Mapping[str, float] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)

    def as_dict(self, pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
        """`Comparison.as_dict`, and what a GPU's times have beside."""
        more = {"call_seconds": dict(self.call_seconds), "notes": dict(self.notes)}
        if not {"wall", "thread"} >= set(self.how.values()):
            more["how"] = dict(self.how)
        return self.comparison.as_dict(pairs) | {key: value for key, value in more.items() if value}


class Clock(Protocol):
    """What a benchmark needs of a device beside running on it. name: by what it takes times."""

    name: str

    def sets(self, size: int) -> int:
        """How many sets of inputs of `size` bytes take turns."""
        ...

    def alternate(self, candidates: Candidates, rounds: int | None = None) -> Times:
        """Times every candidate once a round, in turning order. `rounds` None: as many as the clock finds right."""
        ...

    def peak_bytes(self, call: Call) -> int | None:
        """The most memory that a call holds beyond what was held before it; None where that is not known."""
        ...

    def synchronize(self) -> None:
        """Returns when the device has done all that it was given."""
        ...


def in_turn(calls: Sequence[Call]) -> Call:
    """A call that runs the next of `calls` each time."""
    if len(calls) == 1:
        return calls[0]
    turn = itertools.cycle(calls)
    return lambda: next(turn)()


class CpuClock:
    """A CPU's time.

    turns: how many sets of inputs, 1 for a CPU; more where it stands in for a GPU's. timer: `time.perf_counter` is the
    wall's time; `time.thread_time` this thread's own, for calls that run on one thread.
    """

    SECONDS_A_CASE = 0.6
    ROUNDS = (7, 41)

    def __init__(self, turns: int = 1, timer: Callable[[], float] = time.perf_counter) -> None:
        self.turns, self.timer = turns, timer
        self.name = f"time.{timer.__name__}"

    def sets(self, size: int) -> int:
        return self.turns

    def alternate(self, candidates: Candidates, rounds: int | None = None) -> Times:
        calls = {name: in_turn(sets) for name, sets in candidates.items()}
        how = dict.fromkeys(calls, "thread" if self.timer is time.thread_time else "wall")
        if rounds == 1:
            return Times(alternate(calls, 1, warmup=0, shortest=0.0, clock=self.timer), how)
        if rounds is None:
            trial = alternate(calls, 1, clock=self.timer)
            once = sum(max(trial.time(name).median, 2e-3) for name in calls)
            rounds = max(self.ROUNDS[0], min(self.ROUNDS[1], round(self.SECONDS_A_CASE / once)))
        return Times(alternate(calls, rounds, clock=self.timer), how)

    def peak_bytes(self, call: Call) -> int | None:
        return None

    def synchronize(self) -> None:
        return None


@dataclass(frozen=True)
class _Sampler:
    """run: does `calls` calls, in the order of their sets, as `how` says."""

    run: Call
    calls: int
    how: str
    note: str = ""


class CudaClock:
    """A GPU's time. Calls below GRAPH_BELOW seconds are captured into a graph and replayed, for the host may need
    longer to launch them than the GPU to do them; `call_seconds` then says how long they take launched one by one.

    cuda: torch.cuda, or what stands in for it in a test.
    """

    ROUNDS = 21
    GRAPH_BELOW = 0.1
    SECONDS_A_SAMPLE = 2e-3
    EAGER_CALLS = 30
    name = "CUDA events"

    def __init__(self, cuda: Any = torch.cuda) -> None:
        self.cuda = cuda
        self.cache_bytes = int(getattr(cuda.get_device_properties(cuda.current_device()), "L2_cache_size", 50 << 20))
        self._stream = cuda.Stream()
        self._broken: list[Any] = []

    def sets(self, size: int) -> int:
        return max(1, min(MOST_SETS, math.ceil(CACHE_TIMES * self.cache_bytes / max(size, 1))))

    def synchronize(self) -> None:
        self.cuda.synchronize()

    def alternate(self, candidates: Candidates, rounds: int | None = None) -> Times:
        rounds = rounds or self.ROUNDS
        names = list(candidates)
        samples: dict[str, list[float]] = {name: [] for name in names}
        collecting = gc.isenabled()
        gc.collect(1)
        # Neither a capture nor a sample may be broken into by what a collection frees.
        gc.disable()
        try:
            samplers = {name: self._sampler(calls) for name, calls in candidates.items()}
            for sampler in samplers.values():
                sampler.run()
            for turn in range(rounds):
                for name in names[turn % len(names) :] + names[: turn % len(names)]:
                    samples[name].append(self._seconds(samplers[name].run) / samplers[name].calls)
        finally:
            if collecting:
                gc.enable()
        graphs = [name for name, sampler in samplers.items() if sampler.how == "graph"]
        return Times(
            Comparison({name: tuple(taken) for name, taken in samples.items()}),
            {name: sampler.how for name, sampler in samplers.items()},
            {name: self._call_seconds(candidates[name]) for name in graphs},
            {name: sampler.note for name, sampler in samplers.items() if sampler.note},
        )

    def peak_bytes(self, call: Call) -> int | None:
        call()
        self.cuda.synchronize()
        before = int(self.cuda.memory_allocated())
        self.cuda.reset_peak_memory_stats()
        call()
        self.cuda.synchronize()
        return int(self.cuda.max_memory_allocated()) - before

    def _seconds(self, run: Call) -> float:
        """Seconds that the device needs for `run`, between two events."""
        start, end = self.cuda.Event(enable_timing=True), self.cuda.Event(enable_timing=True)
        start.record()
        run()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1e3

    def _call_seconds(self, calls: Sequence[Call]) -> float:
        """Seconds a call, launched one by one."""
        call = in_turn(calls)
        call()
        self.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(self.EAGER_CALLS):
            call()
        self.cuda.synchronize()
        return (time.perf_counter() - start) / self.EAGER_CALLS

    def _sampler(self, calls: Sequence[Call]) -> _Sampler:
        def once() -> None:
            for call in calls:
                call()

        # Compiles and warms up, also on the stream that captures, as capturing asks for; and has torch's allocator hold
        # the memory that the calls need.
        self.cuda.synchronize()
        with self.cuda.stream(self._stream):
            once()
        self.cuda.synchronize()
        once()
        estimate = max(self._seconds(once) / len(calls), 1e-7)
        turns = max(1, math.ceil(self.SECONDS_A_SAMPLE / estimate / len(calls)))

        def run() -> None:
            for _ in range(turns):
                once()

        count = turns * len(calls)
        if estimate >= self.GRAPH_BELOW:
            return _Sampler(run, count, "events")
        try:
            self._require_asynchronous(once)
            return _Sampler(self._captured(run), count, "graph")
        except RuntimeError as error:
            # What was captured in part is worth nothing, and neither is its stream.
            self._stream = self.cuda.Stream()
            self.cuda.synchronize()
            return _Sampler(run, count, "events", f"no graph: {first_line(error)}")

    def _require_asynchronous(self, run: Call) -> None:
        """RuntimeError if the host waits for the device within `run`: a capture cannot, and is not left clean by it."""
        before = self.cuda.get_sync_debug_mode()
        self.cuda.set_sync_debug_mode("error")
        try:
            run()
        finally:
            self.cuda.set_sync_debug_mode(before)

    def _captured(self, run: Call) -> Call:
        """The replay of a graph of what `run` launches."""
        graph = self.cuda.CUDAGraph()
        try:
            # The outer context takes the stream back should the capture break off, which leaves the inner one's set.
            with self.cuda.stream(self._stream), self.cuda.graph(graph, stream=self._stream):
                run()
        except RuntimeError:
            # The allocator may still look at it.
            self._broken.append(graph)
            raise
        self.cuda.synchronize()
        replay: Call = graph.replay
        return replay


def first_line(error: BaseException, width: int = 160) -> str:
    """An error's kind and the first line of its message."""
    lines = str(error).strip().splitlines()
    text = f"{type(error).__name__}: {lines[0].strip()}" if lines else type(error).__name__
    return text if len(text) <= width else text[: width - 3] + "..."
