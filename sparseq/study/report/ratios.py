"""The tables of ratios, in the form of Movva et al. 2022, Table 1: one row a size, one column a set of methods."""

from collections.abc import Iterable

from sparseq.drop import POINTS

from .configurations import method_label
from .reduction import FOUND, NOT_REACHED, Ratio, Reduction
from .statistics import mean
from .table import Cell, Column, Noted, Table


def ratio_tables(reduction: Reduction) -> list[Table]:
    """The means over tasks, and the ratios of each task if there are several."""
    means = mean_table(reduction)
    return [means, task_table(reduction)] if len(reduction.study.tasks) > 1 else [means]


def mean_table(reduction: Reduction) -> Table:
    """The arithmetic mean over the tasks whose curve reaches the score; says over how many, where that is not all."""
    study = reduction.study
    rows = []
    for size in study.sizes:
        of_tasks = [(task, reduction.baseline_cost(task, size)) for task in study.tasks]
        row: list[Cell] = [size, _shown(reduction, mean([cost for _, cost in of_tasks]))]
        for methods in study.method_sets:
            row.append(_mean_cell([reduction.ratios[task, size, methods] for task in study.tasks]))
        rows.append(tuple(row))
    tasks = f"mean of {len(study.tasks)} tasks" if len(study.tasks) > 1 else study.tasks[0]
    return Table(
        f"ratios-{reduction.cost.name}",
        f"Times {reduction.cost.verb}: {reduction.cost.title}, {tasks}",
        (Column("size"), *_columns(reduction)),
        tuple(rows),
    )


def task_table(reduction: Reduction) -> Table:
    """The ratios of each task. CSV has, as notes, the configurations that they come from."""
    study = reduction.study
    rows = []
    for task in study.tasks:
        for size in study.sizes:
            row: list[Cell] = [task, size, _shown(reduction, reduction.baseline_cost(task, size))]
            row += [_cell(reduction.ratios[task, size, methods]) for methods in study.method_sets]
            rows.append(tuple(row))
    return Table(
        f"ratios-{reduction.cost.name}-by-task",
        f"Times {reduction.cost.verb}, by task: {reduction.cost.title}",
        (Column("task"), Column("size"), *_columns(reduction)),
        tuple(rows),
    )


def _columns(reduction: Reduction) -> Iterable[Column]:
    yield Column("baseline", reduction.cost.unit, 1 if reduction.cost.unit == "MB" else 3)
    for methods in reduction.study.method_sets:
        yield Column(method_label(methods), "times", 2, noted=True)


def _shown(reduction: Reduction, cost: float | None) -> float | None:
    return None if cost is None else cost / reduction.cost.shown


def _cell(ratio: Ratio) -> Noted:
    if ratio.values is None or ratio.state != FOUND:
        return Noted(None, ratio.state)
    return Noted(float(ratio.values[0]), note=ratio.at)


def _mean_cell(ratios: list[Ratio]) -> Noted:
    if len(ratios) == 1:
        return _cell(ratios[0])
    found = [float(ratio.values[0]) for ratio in ratios if ratio.values is not None and ratio.state == FOUND]
    never = sum(ratio.state == NOT_REACHED for ratio in ratios)
    if not found:
        return Noted(None, ratios[0].state if len({ratio.state for ratio in ratios}) == 1 else NOT_REACHED)
    mark = f"({len(found)} of {len(ratios)})" if len(found) < len(ratios) else ""
    return Noted(mean(found), mark, f"{never} not reached" if never else "")


def definition(tolerance: float, *, interpolate: bool, several: bool) -> list[str]:
    """What the ratios are, in sentences. several: whether the study has several tasks."""
    parts = [
        "How many times smaller or faster each set of methods makes a model at the same score (Movva et al. 2022, "
        "Table 1). The baseline of a size is its plain model. Its bytes, or its time, are divided by the least on the "
        "curve of the methods, over all sizes and settings, whose score is at most "
        f"{POINTS * tolerance:g} points below the baseline's. A ratio under 1 means that only a larger size reaches "
        'that score, and "not reached" that no configuration does. "none" is the curve of the plain models.'
    ]
    if interpolate:
        parts.append(
            "Between neighbouring sizes of one setting, the score is taken as linear in the logarithm of the bytes or "
            "the time; nothing is extrapolated."
        )
    else:
        parts.append("Only configurations that were run count; nothing is interpolated.")
    if several:
        parts.append(
            "The first table of each kind has arithmetic means over the tasks. A number with (2 of 3) is over as many "
            "tasks as it says, because the others are missing or not reached: it is no mean over all tasks."
        )
    return parts
