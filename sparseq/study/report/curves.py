"""Score against size, one line a method over the sizes: the form of Movva et al. 2022, Figure 1."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sparseq.drop import POINTS

from .axes import log_axis
from .configurations import Configuration, Configurations, Settings
from .fronts import not_dominated
from .reduction import Cost
from .statistics import Estimate, mean, over_tasks
from .style import MOST_LINES, Figure, Looks, Sheet, label

Point = tuple[float, Estimate]


@dataclass(frozen=True)
class Line:
    """A method's line in one panel. key: of its settings, None for the best of many. points: None where missing."""

    methods: tuple[str, ...]
    key: Settings | None
    name: str
    points: tuple[Point | None, ...]

    @property
    def known(self) -> list[Point]:
        return [point for point in self.points if point is not None]


def lines_of(study: Configurations, looks: Looks, cost: Cost, task: str | None) -> list[Line]:
    """The lines of a task, or, for None, of the means over tasks.

    A mean is a point only where every task has it, so that all means are over the same tasks.
    """
    found = []
    for methods in study.method_sets:
        of_method = [
            Line(methods, key, looks.name(items[0]), _points(study, items, cost, task))
            for key, items in study.lines(methods, task).items()
        ]
        of_method = [line for line in of_method if line.known]
        if len(of_method) > MOST_LINES:
            name = looks.best_name(methods, len(of_method))
            of_method = [Line(methods, None, name, _best([point for line in of_method for point in line.known]))]
        found += of_method
    return found


def curve_figure(study: Configurations, cost: Cost) -> Figure | None:
    """A panel for the mean over tasks, if there are several, and one a task; None if there is nothing to draw."""
    looks = Looks(study)
    drawn: list[tuple[str, str, list[Line]]] = []
    if len(study.tasks) > 1:
        drawn.append((f"mean of {len(study.tasks)} tasks", "score", lines_of(study, looks, cost, None)))
    for task in study.tasks:
        metric = study.results.metrics.get(task, "score")
        drawn.append((task, metric, lines_of(study, looks, cost, task)))
    drawn = [one for one in drawn if one[2]]
    if not drawn:
        return None
    sheet = Sheet.of(len(drawn))
    handles: dict[str, tuple[Line, Any]] = {}
    for panel, (title, metric, lines) in zip(sheet.panels, drawn, strict=True):
        for line in lines:
            handles.setdefault(line.name, (line, _draw(panel, line, looks, cost)))
        log_axis(panel, [value / cost.shown for line in lines for value, _ in line.known])
        panel.set_title(label(title, 60))
        panel.set_xlabel(f"{cost.title}, {cost.unit} (logarithmic)")
        panel.set_ylabel(f"{label(metric, 40)}, points")
    ordered = sorted(handles.items(), key=lambda pair: looks.in_legend(pair[1][0].methods, pair[1][0].key))
    sheet.legend({name: drawn for name, (_, drawn) in ordered})
    sheet.freeze()
    title = f"Score against {cost.title}"
    alt = (
        f"{title}, one line for each set of methods over the sizes; bars are standard errors. "
        f"The numbers are in the tables of all configurations."
    )
    return sheet.finish(f"score-{cost.name}", title, alt)


def _draw(panel: Any, line: Line, looks: Looks, cost: Cost) -> Any:
    """A missing point interrupts the line."""
    gap = (math.nan, Estimate(math.nan))
    points = [point or gap for point in line.points]
    bars = [POINTS * (score.error or 0.0) for _, score in points]
    return panel.errorbar(
        [value / cost.shown for value, _ in points],
        [POINTS * score.mean for _, score in points],
        yerr=bars if any(bars) else None,
        elinewidth=0.8,
        **looks.of(line.methods, line.key),
    )


def _points(
    study: Configurations, items: Sequence[Configuration], cost: Cost, task: str | None
) -> tuple[Point | None, ...]:
    tasks = study.tasks if task is None else (task,)
    sizes = [size for size in study.sizes if any(item.size == size for item in items)]
    return tuple(_point([item for item in items if item.size == size], cost, len(tasks)) for size in sizes)


def _point(items: Sequence[Configuration], cost: Cost, tasks: int) -> Point | None:
    """Of one size: the mean over its tasks; None unless all have a score and a cost."""
    scores = [item.score for item in items if item.score is not None]
    costs = [value for item in items if item.score is not None and (value := cost.value(item)) is not None]
    centre = mean(costs)
    if centre is None or not len(scores) == len(costs) == tasks:
        return None
    return centre, over_tasks(scores)


def _best(points: Sequence[Point]) -> tuple[Point, ...]:
    chosen = not_dominated([score.mean for _, score in points], [[cost] for cost, _ in points])
    return tuple(sorted((points[i] for i in chosen), key=lambda point: point[0]))
