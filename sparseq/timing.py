"""Timings whose ratios are meaningful: candidates alternate in one process.

On a shared or throttled machine the same code can take several times as long a minute later, so times measured one
after the other cannot be compared. `alternate` runs every candidate once per round, in rotating order, and compares
them within rounds.
"""

import gc
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import comb
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from sparseq.errors import InputError

CONFIDENCE = 0.95
# A shorter sample is mostly noise of the clock and the interpreter.
SHORTEST_SAMPLE = 2e-3


@dataclass(frozen=True)
class Interval:
    """A median with an interval that contains the true median with probability `confidence`, for any distribution."""

    median: float
    low: float
    high: float
    confidence: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> "Interval":
        """From order statistics: the narrowest pair, symmetric by rank, that reaches CONFIDENCE.

        With fewer than 6 samples no pair does; then the interval is from the least to the greatest, with the confidence
        that this has.
        """
        ordered, n = sorted(samples), len(samples)
        if not n:
            raise InputError("there are no samples to take a median of: time at least one round")

        def covered(rank: int) -> float:
            return 1 - 2 * sum(comb(n, i) for i in range(rank + 1)) / 2**n

        rank = max((r for r in range((n + 1) // 2) if covered(r) >= CONFIDENCE), default=0)
        return cls(median(ordered), ordered[rank], ordered[n - 1 - rank], max(covered(rank), 0.0))

    def __str__(self) -> str:
        return f"{self.median:.3g} [{self.low:.3g}, {self.high:.3g}]"


@dataclass(frozen=True)
class Comparison:
    """Samples of several candidates, in seconds per unit of work; the i-th samples of all were taken side by side."""

    samples: Mapping[str, tuple[float, ...]]

    def time(self, name: str) -> Interval:
        """Seconds per unit of work."""
        return Interval.of(self.samples[name])

    def ratio(self, name: str, baseline: str) -> Interval:
        """time(name) / time(baseline), the median of the rounds' ratios; below 1, `name` is faster."""
        pairs = zip(self.samples[name], self.samples[baseline], strict=True)
        return Interval.of([ours / theirs for ours, theirs in pairs])

    def as_dict(self, pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
        """JSON: rounds, each candidate's seconds, and for each pair (name, baseline) the ratio of their times."""
        ratios = [{"of": name, "to": baseline, **asdict(self.ratio(name, baseline))} for name, baseline in pairs]
        return {
            "rounds": len(next(iter(self.samples.values()))),
            "seconds": {name: asdict(self.time(name)) for name in self.samples},
            "ratios": ratios,
        }


def alternate(
    candidates: Mapping[str, Callable[[], object]],
    rounds: int,
    *,
    units: float = 1.0,
    warmup: int = 1,
    shortest: float = SHORTEST_SAMPLE,
    clock: Callable[[], float] = time.perf_counter,
    settle: float = 0.0,
    settle_with: Mapping[str, Callable[[], object]] | None = None,
    each_round: Callable[[], object] | None = None,
) -> Comparison:
    """Times each candidate once per round; the order rotates by one each round. The first `warmup` rounds do not count.

    units: how many units of work (for example sentences) one call does; times are per unit. A call that takes less than
    `shortest` seconds is repeated within its sample, and the sample is the mean. clock: returns seconds; for candidates
    that run on this thread alone `time.thread_time` excludes the time of other processes. settle: seconds of rest
    before each sample, after which the candidate runs unmeasured for a third of them: idle threads of other runtimes
    spin for a while, and take the processor from what comes next. settle_with: what runs then in a candidate's place,
    where one call of the candidate takes much longer. each_round: called before each round, counted or not.
    """
    if rounds < 1 or not candidates:
        raise InputError(f"timing needs a candidate and a round, not {len(candidates)} and {rounds}")
    names = list(candidates)
    repeats = dict.fromkeys(names, 1)
    settling = {**candidates, **(settle_with or {})}
    begin = each_round or (lambda: None)
    for _ in range(warmup):
        begin()
        for name in names:
            seconds = _run(candidates[name], repeats[name], clock)
            # Measured in the last warm-up, because the first call may build or load something.
            repeats[name] = max(1, round(shortest / max(seconds, 1e-9)))
    samples: dict[str, list[float]] = {name: [] for name in names}
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for turn in range(rounds):
            begin()
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                _settle(settling[name], settle)
                samples[name].append(_run(candidates[name], repeats[name], clock) / units)
    finally:
        if collecting:
            gc.enable()
    return Comparison({name: tuple(taken) for name, taken in samples.items()})


def _settle(candidate: Callable[[], object], seconds: float) -> None:
    if not seconds:
        return
    time.sleep(seconds)
    end = time.perf_counter() + seconds / 3
    while time.perf_counter() < end:
        candidate()


def _run(candidate: Callable[[], object], repeats: int, clock: Callable[[], float]) -> float:
    """Mean seconds per call."""
    start = clock()
    for _ in range(repeats):
        candidate()
    return (clock() - start) / repeats


def time_batches(
    models: Mapping[str, nn.Module], batches: Iterable[Mapping[str, Tensor]], rounds: int, *, warmup: int = 1
) -> Comparison:
    """Seconds per sentence of each model over the same `batches`, alternately.

    batches: keyword arguments of forward, with `input_ids` [B, T] among them. A sample is one pass over all batches.
    Models are timed in eval mode, and their modes are restored.
    """
    held = list(batches)
    if not held:
        raise InputError("there are no sentences to time models on: give at least one")
    modes = {name: model.training for name, model in models.items()}

    def passing(model: nn.Module) -> Callable[[], None]:
        def run() -> None:
            for batch in held:
                model(**batch)
            if torch.cuda.is_available():
                torch.cuda.synchronize()

        return run

    try:
        with torch.inference_mode():
            candidates = {name: passing(model.eval()) for name, model in models.items()}
            return alternate(candidates, rounds, units=sum(len(b["input_ids"]) for b in held), warmup=warmup)
    finally:
        for name, model in models.items():
            model.train(modes[name])


def time_sentences(
    models: Mapping[str, nn.Module],
    tokenizer: Callable[..., Mapping[str, Tensor]],
    sentences: Sequence[str],
    *,
    batch_sizes: Sequence[int] = (1, 32),
    rounds: int = 11,
    warmup: int = 1,
) -> dict[int, Comparison]:
    """Seconds per sentence of each model, by batch size; tokenizing is done before and does not count.

    Every sample passes over all `sentences`, in batches padded to their longest sentence. All models share the
    tokenizer.
    """
    found = {}
    for size in batch_sizes:
        parts = [list(sentences[i : i + size]) for i in range(0, len(sentences), size)]
        encoded = [dict(tokenizer(part, padding=True, truncation=True, return_tensors="pt")) for part in parts]
        found[size] = time_batches(models, encoded, rounds, warmup=warmup)
    return found
