"""Means, standard errors and bootstrap intervals of the report."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

RESAMPLES = 2000
CONFIDENCE = 0.95
SEED = 0
"""Of the bootstrap's generator: the same study gives the same intervals."""

OVER_SEEDS, OVER_ROWS = "seeds", "rows"


@dataclass(frozen=True)
class Estimate:
    """A mean with its standard error.

    error: None if it cannot be told. over: what the error is over: "seeds", or "rows" for a single seed.
    """

    mean: float
    error: float | None = None
    over: str = ""


def number(value: Any) -> float | None:
    """The value as a finite float, or None."""
    if value is None or not math.isfinite(value):
        return None
    return float(value)


def mean(values: Sequence[float | None]) -> float | None:
    """The arithmetic mean of the values that are not None; None if all are."""
    found = [value for value in values if value is not None]
    return math.fsum(found) / len(found) if found else None


def over_seeds(values: Sequence[float], rows: int | None = None) -> Estimate:
    """The mean over seeds with its standard error: the standard deviation (n - 1) / sqrt(n).

    rows: for a single seed whose value is a fraction of that many rows; then the error is the binomial one,
    sqrt(p (1 - p) / rows), and is over rows. It does not include the variation between seeds.
    """
    centre, count = math.fsum(values) / len(values), len(values)
    if count > 1:
        spread = math.fsum((value - centre) ** 2 for value in values) / (count - 1)
        return Estimate(centre, math.sqrt(spread / count), OVER_SEEDS)
    if rows and 0.0 <= centre <= 1.0:
        return Estimate(centre, math.sqrt(centre * (1.0 - centre) / rows), OVER_ROWS)
    return Estimate(centre)


def over_tasks(estimates: Sequence[Estimate]) -> Estimate:
    """The mean over tasks. Its standard error takes the tasks as given: root of the summed squares / their number."""
    centre = math.fsum(one.mean for one in estimates) / len(estimates)
    errors = [one.error for one in estimates if one.error is not None]
    if len(errors) < len(estimates):
        return Estimate(centre)
    kinds = {one.over for one in estimates}
    error = math.sqrt(math.fsum(error**2 for error in errors)) / len(estimates)
    return Estimate(centre, error, kinds.pop() if len(kinds) == 1 else f"{OVER_SEEDS} or {OVER_ROWS}")


def difference_error(first: Estimate, second: Estimate) -> float | None:
    """The standard error of a difference of two means that are independent; None if one error is unknown."""
    if first.error is None or second.error is None:
        return None
    return math.hypot(first.error, second.error)


def geometric_mean(values: Array) -> Array:
    """Over the last axis, of the values that are not NaN; NaN if all are."""
    known = ~np.isnan(values)
    total = np.where(known, np.log(np.where(known, values, 1.0)), 0.0).sum(-1)
    count = known.sum(-1)
    return np.where(count > 0, np.exp(total / np.maximum(count, 1)), np.nan)


def interval(draws: Array, confidence: float = CONFIDENCE) -> tuple[float, float] | None:
    """The percentile interval of a statistic's bootstrap draws. NaN draws are left out; None if half of them are."""
    found = draws[~np.isnan(draws)]
    if len(found) * 2 <= len(draws):
        return None
    low, high = np.quantile(found, [(1.0 - confidence) / 2, (1.0 + confidence) / 2])
    return float(low), float(high)


def resampled_means(values: Sequence[float], draws: int, generator: np.random.Generator) -> Array:
    """[draws]: means of as many values drawn with replacement."""
    chosen = generator.integers(0, len(values), size=(draws, len(values)))
    return np.asarray(values, dtype=np.float64)[chosen].mean(axis=1)
