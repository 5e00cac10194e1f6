"""The recipe to use within limits: chosen by held-out scores, reported with its validation score."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from sparseq.drop import drop_in_points, within

from .configurations import MB, Configuration, Configurations
from .statistics import Estimate


@dataclass(frozen=True)
class Limits:
    """What a recipe has to keep.

    Attributes:
        max_drop: points of score at most below the teacher.
        max_ms: milliseconds per sentence at most, in batches of `batch`.
        max_mb: MB at most as stored, of 1e6 bytes.
        batch: the batch size that `max_ms` is of.
        by_validation: choose by validation scores where there are no held-out scores. The validation score of a recipe
            chosen so is too good.
    """

    max_drop: float | None = None
    max_ms: float | None = None
    max_mb: float | None = None
    batch: int = 1
    by_validation: bool = False

    @property
    def given(self) -> bool:
        return any(limit is not None for limit in (self.max_drop, self.max_ms, self.max_mb))


@dataclass(frozen=True)
class Limit:
    """One limit. value: a configuration's number that it bounds, None if that is missing."""

    name: str
    unit: str
    most: float
    value: Callable[[Configuration], float | None]

    def met(self, item: Configuration) -> bool:
        value = self.value(item)
        return value is not None and within(value, self.most)


@dataclass(frozen=True)
class Nearest:
    """How near the study comes to one limit.

    met: how many configurations meet it. item: the one with the least value among those that meet all other limits; or
    among all, if `others` is False, because none meets those. None if no configuration has a value.
    """

    limit: Limit
    met: int
    item: Configuration | None
    value: float | None
    others: bool


@dataclass(frozen=True)
class Recommendation:
    """Of one task.

    chosen: the recipe, None if there is none. reason: why there is none. nearest: then, of each limit.
    candidates: configurations that were chosen from. without: those left out because they lack the score.
    teacher: what the drop is measured from.
    """

    task: str
    chosen: Configuration | None
    reason: str = ""
    nearest: tuple[Nearest, ...] = ()
    candidates: int = 0
    without: int = 0
    teacher: Configuration | None = None
    by_validation: bool = False


def recommend(study: Configurations, task: str, limits: Limits) -> Recommendation:
    """The configuration with the best held-out score of those within the limits; of equal ones, the fewest bytes.

    A limit whose number a configuration lacks is not met. Validation scores are used only if `limits.by_validation`
    says so and the task has no held-out scores.
    """
    items = study.of(task)
    done = [item for item in items if item.score is not None]
    validation = limits.by_validation and not any(item.held_out for item in done)

    def score(item: Configuration) -> Estimate | None:
        return item.score if validation else item.held_out

    candidates = [item for item in done if score(item) is not None]
    teacher = study.teacher(task)
    known = Recommendation(
        task, None, "", (), len(candidates), len(done) - len(candidates), teacher, by_validation=validation
    )
    if not candidates:
        return replace(
            known, reason="no finished cell of the task has a held-out score, and validation scores choose nothing"
        )
    if limits.max_drop is not None and teacher is None:
        return replace(known, reason="the study has no teacher of the task, from which a drop could be measured")
    if limits.max_drop is not None and (teacher is None or score(teacher) is None):
        name = "validation" if validation else "held-out"
        return replace(
            known, reason=f"the teacher ({teacher.label if teacher else ''}) has no {name} score to measure from"
        )
    bounds = _limits(limits, teacher, score)
    meeting = [item for item in candidates if all(bound.met(item) for bound in bounds)]
    if meeting:

        def rank(item: Configuration) -> tuple[float, float]:
            own = score(item)
            return -(own.mean if own else 0.0), item.stored_bytes or float("inf")

        return replace(known, chosen=min(meeting, key=rank))
    nearest = tuple(_nearest(bound, bounds, candidates) for bound in bounds)
    return replace(known, reason=_failing(nearest), nearest=nearest)


def _limits(
    limits: Limits, teacher: Configuration | None, score: Callable[[Configuration], Estimate | None]
) -> list[Limit]:
    found = []
    top = score(teacher) if teacher else None
    if limits.max_drop is not None and top is not None:

        def drop(item: Configuration) -> float | None:
            own = score(item)
            return None if own is None else drop_in_points(top.mean, own.mean)

        found.append(Limit("drop", "points", limits.max_drop, drop))
    if limits.max_ms is not None:
        found.append(
            Limit(f"time, batch {limits.batch}", "ms", limits.max_ms, lambda item: item.milliseconds(str(limits.batch)))
        )
    if limits.max_mb is not None:
        found.append(
            Limit(
                "stored size",
                "MB",
                limits.max_mb,
                lambda item: None if item.stored_bytes is None else item.stored_bytes / MB,
            )
        )
    return found


def _nearest(limit: Limit, limits: Sequence[Limit], candidates: Sequence[Configuration]) -> Nearest:
    met = sum(limit.met(item) for item in candidates)
    known = [(value, item) for item in candidates if (value := limit.value(item)) is not None]
    within = [pair for pair in known if all(other.met(pair[1]) for other in limits if other is not limit)]
    value, item = min(within or known, key=lambda pair: pair[0], default=(None, None))
    return Nearest(limit, met, item, value, bool(within))


def _failing(nearest: Sequence[Nearest]) -> str:
    unmeasured = [one.limit.name for one in nearest if one.item is None]
    alone = [f"{one.limit.name} {one.limit.most:g} {one.limit.unit}" for one in nearest if not one.met]
    if unmeasured:
        return f"no configuration has a measured {' or '.join(unmeasured)}"
    if alone:
        return f"no configuration meets {' or '.join(alone)}"
    return "each limit is met by some configuration, but no configuration meets all of them"
