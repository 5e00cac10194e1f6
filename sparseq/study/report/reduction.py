"""How much smaller or faster a method makes a model at the same score (Movva et al. 2022, Table 1).

For a baseline, the plain model of one size, a method's ratio is the baseline's cost divided by the least cost on the
method's curve whose score is at least the baseline's minus a tolerance. The curve has the method's configurations of
all sizes and settings, so that a ratio can come from a smaller size, and is under 1 where only a larger one reaches the
score. A cost is a number of bytes, or a time.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from sparseq.study.records import TOLERANCE

from .configurations import MB, Configuration, Configurations
from .statistics import Array, number, resampled_means

_ROUNDING = 1e-9
"""A score counts as reached if it is this close: sums in floating point are not exact."""


@dataclass(frozen=True)
class Cost:
    """What a ratio is of. of: a configuration's cost, None if it is missing. name: for file names. shown: divisor."""

    name: str
    title: str
    unit: str
    of: Callable[[Configuration], float | None]
    shown: float = 1.0
    verb: str = "smaller"

    def value(self, item: Configuration) -> float | None:
        """Above zero, or None."""
        found = number(self.of(item))
        return found if found is not None and found > 0 else None


PAPER_BYTES = Cost("paper-bytes", "size as the paper counts it", "MB", lambda item: item.paper_bytes, MB)
STORED_BYTES = Cost("stored-bytes", "size as stored", "MB", lambda item: item.stored_bytes, MB)


def latency_cost(batch: str) -> Cost:
    return Cost(
        f"latency-batch-{batch}",
        f"time per sentence, batch {batch}",
        "ms",
        lambda item: item.milliseconds(batch),
        verb="faster",
    )


def costs(study: Configurations) -> list[Cost]:
    """The costs that any cell of the study has."""
    found = [PAPER_BYTES, STORED_BYTES, *(latency_cost(batch) for batch in study.batches)]
    return [cost for cost in found if any(cost.value(item) is not None for item in study.items)]


def crossing(cost_low: float, cost_high: float, score_low: Array, score_high: Array, wanted: Array) -> Array:
    """The cost at which the score is `wanted`, linear in log(cost) between two points; inf where it is not between.

    score_low is below `wanted` and score_high is not, whichever of the two costs is greater.
    """
    between = (score_low < wanted) & (score_high >= wanted)
    rise = np.where(between, score_high - score_low, 1.0)
    share = np.where(between, wanted - score_low, 0.0) / rise
    found = np.exp(np.log(cost_low) + share * (np.log(cost_high) - np.log(cost_low)))
    return np.where(between, found, np.inf)


@dataclass(frozen=True)
class Found:
    """cost: [draws], the least that reaches the score, inf where none does. label: where that of the first draw is."""

    cost: Array
    label: str


@dataclass(frozen=True)
class Curve:
    """A method's points of one task. pairs: of neighbours on a line over the sizes, by their numbers."""

    points: tuple[Configuration, ...]
    cost: tuple[float, ...]
    pairs: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, study: Configurations, task: str, methods: tuple[str, ...], cost: Cost) -> "Curve":
        """Points without a score or a cost are left out, and separate their neighbours."""
        points: list[Configuration] = []
        values: list[float] = []
        pairs: list[tuple[int, int]] = []
        for line in study.lines(methods, task).values():
            before: int | None = None
            for item in line:
                value = cost.value(item)
                if item.score is None or value is None:
                    before = None
                    continue
                if before is not None:
                    pairs.append((before, len(points)))
                before = len(points)
                points.append(item)
                values.append(value)
        return cls(tuple(points), tuple(values), tuple(pairs))

    def least(self, scores: Array, wanted: Array, *, interpolate: bool) -> Found:
        """The least cost whose score reaches `wanted` [draws], where scores is [draws, points].

        interpolate: also between neighbours, see `crossing`. There is no extrapolation beyond the ends of a line.
        """
        reached = [np.where(scores[:, i] >= wanted - _ROUNDING, cost, np.inf) for i, cost in enumerate(self.cost)]
        labels = [item.label for item in self.points]
        if interpolate:
            for pair in self.pairs:
                for low, high in (pair, pair[::-1]):
                    reached.append(crossing(self.cost[low], self.cost[high], scores[:, low], scores[:, high], wanted))
                    labels.append(f"between {self.points[low].label} and {self.points[high].size}")
        found = np.stack(reached, axis=1)
        return Found(found.min(axis=1), labels[int(found[0].argmin())])


@dataclass(frozen=True)
class Ratio:
    """A method's ratio to the baseline of one task and size.

    values: [draws], NaN where the score is not reached; None if the baseline or the whole curve is missing.
    at: the configuration of the first draw.
    """

    values: Array | None
    at: str = ""

    @property
    def state(self) -> str:
        """Of the first draw: "found", "not reached" or "missing"."""
        if self.values is None:
            return MISSING
        return NOT_REACHED if np.isnan(self.values[0]) else FOUND


FOUND, NOT_REACHED, MISSING = "found", "not reached", "missing"


@dataclass(frozen=True, eq=False)
class Reduction:
    """All ratios of a study for one cost.

    draws: 1 for the study's own means; more for as many bootstrap resamples of the seeds of each configuration. Costs
    are not resampled.
    """

    study: Configurations
    cost: Cost
    tolerance: float = TOLERANCE
    interpolate: bool = False
    draws: int = 1
    generator: np.random.Generator | None = None
    _scores: dict[int, Array] = field(default_factory=dict, repr=False)

    def scores(self, item: Configuration) -> Array:
        """[draws]: the configuration's mean score."""
        if id(item) not in self._scores:
            if self.generator is None:
                assert item.score is not None
                self._scores[id(item)] = np.full(self.draws, item.score.mean)
            else:
                self._scores[id(item)] = resampled_means(item.scores, self.draws, self.generator)
        return self._scores[id(item)]

    @cached_property
    def ratios(self) -> Mapping[tuple[str, str, tuple[str, ...]], Ratio]:
        """By task, size of the baseline, and methods."""
        found = {}
        for task in self.study.tasks:
            for methods in self.study.method_sets:
                curve = Curve.of(self.study, task, methods, self.cost)
                scores = np.stack([self.scores(item) for item in curve.points], axis=1) if curve.points else None
                for size in self.study.sizes:
                    found[task, size, methods] = self._ratio(task, size, curve, scores)
        return found

    def baseline_cost(self, task: str, size: str) -> float | None:
        baseline = self.study.baseline(task, size)
        return self.cost.value(baseline) if baseline and baseline.score else None

    def _ratio(self, task: str, size: str, curve: Curve, scores: Array | None) -> Ratio:
        baseline, cost = self.study.baseline(task, size), self.baseline_cost(task, size)
        if baseline is None or cost is None or scores is None:
            return Ratio(None)
        found = curve.least(scores, self.scores(baseline) - self.tolerance, interpolate=self.interpolate)
        values = np.where(np.isinf(found.cost), np.nan, cost / found.cost)
        return Ratio(values, "" if np.isnan(values[0]) else found.label)
