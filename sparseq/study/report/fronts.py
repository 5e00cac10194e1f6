"""Pareto fronts of score, stored bytes and time; and whether a pruned model is ever on one for its score."""

from collections.abc import Sequence
from dataclasses import dataclass

from sparseq.drop import POINTS

from .configurations import MB, Configuration, Configurations, method_label, setting_text
from .reduction import STORED_BYTES, Cost, latency_cost
from .statistics import OVER_SEEDS, difference_error
from .table import Cell, Column, Noted, Table


def not_dominated(scores: Sequence[float], costs: Sequence[Sequence[float]]) -> list[int]:
    """The numbers of the points that no other dominates, in the points' order.

    scores: of each point, more is better. costs: one or several of each point, less is better. A point dominates
    another if it is nowhere worse and somewhere better; equal points do not dominate each other.
    """

    def dominates(one: int, other: int) -> bool:
        pairs = list(zip(costs[one], costs[other], strict=True))
        better = scores[one] > scores[other] or any(a < b for a, b in pairs)
        return better and scores[one] >= scores[other] and all(a <= b for a, b in pairs)

    numbers = range(len(scores))
    return [i for i in numbers if not any(dominates(other, i) for other in numbers)]


def front(items: Sequence[Configuration], costs: Sequence[Cost]) -> list[Configuration]:
    """The configurations on the front of score and these costs, cheapest by the first cost first.

    Configurations without a score, or without one of the costs, take no part.
    """
    known, scores, values = [], [], []
    for item in items:
        found = [cost.value(item) for cost in costs]
        if item.score is not None and all(value is not None for value in found):
            known.append(item)
            scores.append(item.score.mean)
            values.append([value for value in found if value is not None])
    chosen = not_dominated(scores, values)
    return [known[i] for i in sorted(chosen, key=lambda i: (values[i], scores[i]))]


def front_table(study: Configurations) -> Table:
    """Every configuration that is on any front, and which: of score and bytes, score and time, and all three."""
    times = [latency_cost(batch) for batch in study.batches]
    kinds: list[tuple[str, list[Cost]]] = [("score, MB", [STORED_BYTES])]
    kinds += [(f"score, ms ({_batch(cost)})", [cost]) for cost in times]
    kinds += [(f"score, MB, ms ({_batch(cost)})", [STORED_BYTES, cost]) for cost in times]
    rows: list[tuple[Cell, ...]] = []
    for task in study.tasks:
        items = study.of(task)
        members = [front(items, costs) for _, costs in kinds]
        for item in items:
            on = [item in found for found in members]
            if any(on):
                rows.append((task, *_described(item), *_measured(item, study), *on))
    return Table(
        "fronts",
        "Configurations on a front",
        (
            Column("task"),
            Column("size"),
            Column("methods"),
            Column("settings"),
            Column("score", "points", 2),
            Column("stored", "MB", 1),
            *(Column(f"time, {_batch(cost)}", "ms", 3) for cost in times),
            *(Column(name) for name, _ in kinds),
        ),
        tuple(rows),
        "A configuration is on a front if no other of the task is at least as good in everything named and better in "
        "something. Points are means over seeds, whose errors do not count, so that a place on a front can be chance.",
    )


@dataclass(frozen=True)
class PrunedMember:
    """A pruned configuration on the front of score and time.

    dense: the best-scoring one without pruning, of any size and methods, that is at least as fast; None if none is.
    """

    pruned: Configuration
    dense: Configuration | None

    @property
    def gain(self) -> float | None:
        """Its score minus the dense one's, in points."""
        if self.dense is None or self.dense.score is None or self.pruned.score is None:
            return None
        return POINTS * (self.pruned.score.mean - self.dense.score.mean)

    @property
    def error(self) -> float | None:
        """The standard error of `gain`, taking both scores as independent."""
        if self.dense is None or self.dense.score is None or self.pruned.score is None:
            return None
        found = difference_error(self.pruned.score, self.dense.score)
        return None if found is None else POINTS * found


def pruned_members(items: Sequence[Configuration], cost: Cost) -> list[PrunedMember]:
    """The pruned configurations on the front of score and `cost`, each with the dense one that it has to beat."""
    found = []
    for item in front(items, [cost]):
        if not item.pruned:
            continue
        limit = cost.value(item)
        assert limit is not None
        as_fast = [
            other
            for other in items
            if not other.pruned and other.score and (value := cost.value(other)) is not None and value <= limit
        ]
        best = max(as_fast, key=lambda other: other.score.mean if other.score else 0.0, default=None)
        found.append(PrunedMember(item, best))
    return found


def pruning_table(study: Configurations) -> Table:
    """The pruned members of each front of score and time; where there is none, a row that says so."""
    rows: list[tuple[Cell, ...]] = []
    for task in study.tasks:
        for cost in map(latency_cost, study.batches):
            members = pruned_members(study.of(task), cost)
            for one in members:
                dense = one.dense
                rows.append(
                    (
                        task,
                        _batch(cost),
                        one.pruned.label,
                        cost.value(one.pruned),
                        dense.label if dense else "no dense model is as fast",
                        cost.value(dense) if dense else None,
                        one.gain,
                        Noted(one.error, _kind(one)),
                    )
                )
            if not members:
                rows.append((task, _batch(cost), "none: no pruned model is on the front", None, "", None, None, None))
    return Table(
        "pruning",
        "Does a pruned model beat a dense one that is as fast?",
        (
            Column("task"),
            Column("of"),
            Column("pruned model on the front"),
            Column("time of the pruned", "ms", 3),
            Column("best dense model at least as fast"),
            Column("time of the dense", "ms", 3),
            Column("gain", "points", 2),
            Column("standard error", "points", 2, noted=True),
        ),
        tuple(rows),
        "Dense models are those without mp, of every size and all other methods, so shallower ones too. The standard "
        "error takes both scores as independent; a gain of less than two standard errors may be chance, the more so as "
        "members of a front are chosen for their scores.",
    )


def _kind(one: PrunedMember) -> str:
    if one.error is None or one.dense is None or one.dense.score is None or one.pruned.score is None:
        return ""
    kinds = {one.dense.score.over, one.pruned.score.over}
    return "" if kinds == {OVER_SEEDS} else f"({' and '.join(sorted(kinds))})"


def _batch(cost: Cost) -> str:
    return cost.name.removeprefix("latency-").replace("-", " ")


def _described(item: Configuration) -> tuple[str, str, str]:
    return item.size, method_label(item.methods), setting_text(item.settings)


def _measured(item: Configuration, study: Configurations) -> list[float | None]:
    score = None if item.score is None else POINTS * item.score.mean
    stored = None if item.stored_bytes is None else item.stored_bytes / MB
    return [score, stored, *(item.milliseconds(batch) for batch in study.batches)]
