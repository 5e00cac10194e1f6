"""Whether methods multiply: the ratio of a combination divided by the product of its single methods' ratios.

1 means that they multiply exactly, above 1 that they help one another, and below 1 that their gains overlap. Per size
the ratios are means over tasks, as in Movva et al. 2022, Table 1; the geometric mean is over sizes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from .configurations import Configurations, method_label
from .reduction import Cost, Ratio, Reduction
from .statistics import CONFIDENCE, RESAMPLES, SEED, Array, geometric_mean, interval
from .table import Cell, Column, Noted, Table


def interactions(combined: Array, singles: Sequence[Array]) -> Array:
    """combined / product of singles, elementwise. Each is a ratio to the baseline; NaN where any is missing."""
    product = np.ones_like(combined)
    for single in singles:
        product = product * single
    return combined / product


@dataclass(frozen=True)
class Interaction:
    """Of one combination and cost.

    mean: geometric, over `sizes` sizes; None without any. low, high: 95 % bootstrap interval, None if there is none.
    partial: sizes of which some tasks lack a ratio.
    """

    methods: tuple[str, ...]
    mean: float | None
    low: float | None
    high: float | None
    sizes: int
    partial: int


def combinations(study: Configurations) -> Iterator[tuple[str, ...]]:
    """The sets of methods of at least two, of which each single method is in the study too."""
    for methods in study.method_sets:
        if len(methods) > 1 and all((method,) in study.method_sets for method in methods):
            yield methods


def can_vary(study: Configurations) -> bool:
    """Whether there is anything to resample: several tasks, or several seeds of any configuration."""
    return len(study.tasks) > 1 or any(len(item.scores) > 1 for item in study.items)


def find(
    study: Configurations, cost: Cost, tolerance: float, *, interpolate: bool, resamples: int = RESAMPLES
) -> list[Interaction]:
    """The interactions of every combination.

    Intervals are percentiles over resamples of the seeds of each configuration, and of the tasks. The generator always
    starts from the same seed.
    """
    own = Reduction(study, cost, tolerance, interpolate)
    drawn, weights = None, None
    if can_vary(study) and resamples:
        generator = np.random.default_rng(SEED)
        drawn = Reduction(study, cost, tolerance, interpolate, resamples, generator)
        chosen = generator.integers(0, len(study.tasks), size=(resamples, len(study.tasks)))
        weights = np.stack([(chosen == task).sum(axis=1) for task in range(len(study.tasks))], axis=1)
    found = []
    for methods in combinations(study):
        by_size, tasks = of_sizes(own, methods, np.ones((1, len(study.tasks))))
        mean = float(geometric_mean(by_size)[0])
        ends = None
        if drawn is not None and weights is not None:
            # Only sizes that the study itself has: a resample cannot bring in others.
            draws = of_sizes(drawn, methods, weights)[0][:, ~np.isnan(by_size[0])]
            ends = interval(geometric_mean(draws)) if draws.shape[1] else None
        low, high = ends or (None, None)
        known = int((tasks > 0).sum())
        partial = int(((tasks > 0) & (tasks < len(study.tasks))).sum())
        found.append(Interaction(methods, None if np.isnan(mean) else mean, low, high, known, partial))
    return found


def of_sizes(reduction: Reduction, methods: tuple[str, ...], weights: Array) -> tuple[Array, Array]:
    """The interaction of each size: [draws, sizes]; and over how many tasks each is: [sizes], of the first draw.

    weights: [draws, tasks], how often each task counts. Of a size only tasks count that have the ratios of the
    combination and of all its methods, so that all means are over the same tasks.
    """
    study = reduction.study
    sets = [methods, *((method,) for method in methods)]
    by_size, tasks = [], []
    for size in study.sizes:
        ratios = np.stack(
            [
                np.stack([_values(reduction.ratios[task, size, one], reduction.draws) for one in sets], axis=-1)
                for task in study.tasks
            ],
            axis=1,
        )  # [draws, tasks, sets]
        usable = ~np.isnan(ratios).any(axis=-1)
        weight = np.where(usable, weights, 0.0)
        total = weight.sum(axis=1)
        summed = (np.where(usable[..., None], ratios, 0.0) * weight[..., None]).sum(axis=1)
        means = np.where(total[:, None] > 0, summed / np.maximum(total, 1.0)[:, None], np.nan)
        by_size.append(interactions(means[:, 0], [means[:, 1 + i] for i in range(len(methods))]))
        tasks.append(int(usable[0].sum()))
    return np.stack(by_size, axis=1), np.array(tasks)


def interaction_table(
    study: Configurations, costs: Sequence[Cost], tolerance: float, *, interpolate: bool, resamples: int = RESAMPLES
) -> Table:
    """One row a combination and cost."""
    rows: list[tuple[Cell, ...]] = []
    for cost in costs:
        for one in find(study, cost, tolerance, interpolate=interpolate, resamples=resamples):
            mark = f"({one.partial} over fewer tasks)" if one.partial else ""
            rows.append((cost.title, method_label(one.methods), one.mean, one.low, one.high, Noted(one.sizes, mark)))
    return Table(
        "interactions",
        "Interaction: ratio of the combination / product of the single methods' ratios",
        (
            Column("of"),
            Column("methods"),
            Column("geometric mean", digits=2),
            Column("low", digits=2),
            Column("high", digits=2),
            Column("sizes", digits=0, noted=True),
        ),
        tuple(rows),
        _about(study, resamples, interpolate),
    )


def _values(ratio: Ratio, draws: int) -> Array:
    return np.full(draws, np.nan) if ratio.values is None else ratio.values


def _about(study: Configurations, resamples: int, interpolate: bool) -> str:
    text = (
        "1 means that the methods multiply, more that they help one another, less that their gains overlap. Ratios of "
        "a size are means over the tasks that have them all, and the geometric mean is over the sizes."
    )
    if not can_vary(study) or not resamples:
        return f"{text} There are no intervals: they need several seeds or several tasks."
    seeds = any(len(item.scores) > 1 for item in study.items)
    what = [
        part
        for part, there in (("the seeds of each configuration", seeds), ("the tasks", len(study.tasks) > 1))
        if there
    ]
    return (
        f"{text} Low and high are {100 * CONFIDENCE:g} % bootstrap intervals from {resamples:,} resamples of "
        f"{' and '.join(what)}. With few seeds or tasks they are too narrow."
        + ("" if interpolate else " Without interpolation a ratio jumps from one configuration to the next.")
    )
