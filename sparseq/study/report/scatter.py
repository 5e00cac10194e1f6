"""Every configuration of a task as a point of score and cost, with the fronts of all and of the dense ones."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from sparseq.drop import POINTS

from .axes import log_axis
from .configurations import Configuration, Configurations
from .fronts import front
from .reduction import STORED_BYTES, Cost, latency_cost
from .style import DPI, Figure, Looks, Sheet, label

ALL, DENSE = "front of all models", "front of dense models"
LABEL_SIZE = 7.5
# Offsets of a label from its point in units of its own size, the best first.
_PLACES = (
    *((-0.5, 0.9), (-0.6, 0.0), (-0.6, 0.5), (0.0, 1.1), (-0.9, 1.4), (-0.5, 2.0), (0.5, 0.9)),
    *((0.5, -0.9), (0.6, -0.5), (0.6, -1.6), (-0.5, 3.0)),
)


def front_figures(study: Configurations) -> list[Figure]:
    """A figure for each task that has anything to draw: a panel for stored bytes, and one for each batch size."""
    looks = Looks(study)
    costs = [STORED_BYTES, *(latency_cost(batch) for batch in study.batches)]
    found = [_figure(study, looks, number, task, costs) for number, task in enumerate(study.tasks, 1)]
    return [figure for figure in found if figure is not None]


def _figure(study: Configurations, looks: Looks, number: int, task: str, costs: Sequence[Cost]) -> Figure | None:
    items = [item for item in study.of(task) if item.score is not None]
    shown = [cost for cost in costs if any(cost.value(item) is not None for item in items)]
    if not shown:
        return None
    sheet = Sheet.of(len(shown), height=3.9)
    handles: dict[str, Any] = {}
    for panel, cost in zip(sheet.panels, shown, strict=True):
        _points(panel, items, cost, looks, handles)
        _front(panel, items, cost, handles)
        log_axis(panel, [value / cost.shown for item in items if (value := cost.value(item)) is not None], room=1.4)
        panel.margins(y=0.1)
        panel.set_title(cost.title)
        panel.set_xlabel(f"{cost.unit} (logarithmic)")
        panel.set_ylabel(f"{label(study.results.metrics.get(task, 'score'), 40)}, points")
    fronts = {name: handles.pop(name) for name in (ALL, DENSE) if name in handles}
    sheet.legend({**handles, **fronts})
    sheet.figure.suptitle(label(task, 80), fontsize=11, x=0.01, ha="left")
    sheet.freeze()
    for panel, cost in zip(sheet.panels, shown, strict=True):
        _name_sizes(panel, items, cost)
    title = f"Score against bytes and time: {task}"
    alt = (
        f"{title}. Points are configurations; hollow ones are pruned. Lines are the Pareto fronts of all and of the "
        f"dense models. The numbers are in the tables."
    )
    return sheet.finish(f"fronts-{number}", title, alt)


def _points(panel: Any, items: Sequence[Configuration], cost: Cost, looks: Looks, handles: dict[str, Any]) -> None:
    members = front(items, [cost])
    for item in sorted(items, key=looks.order_of_item):
        value, name = cost.value(item), looks.name_of_item(item)
        if value is None or item.score is None:
            continue
        style = looks.of_item(item) | {"linestyle": "none"}
        drawn = panel.errorbar(
            value / cost.shown,
            POINTS * item.score.mean,
            yerr=POINTS * item.score.error if item.score.error is not None and item in members else None,
            elinewidth=0.5,
            zorder=3,
            **style,
        )
        handles.setdefault(name, drawn)


def _steps(items: Sequence[Configuration], cost: Cost) -> list[tuple[float, float]]:
    """The corners of a front, which runs from each point to the right and then up to the next."""
    members = front(items, [cost])
    points = [
        (value / cost.shown, POINTS * item.score.mean) for item in members if (value := cost.value(item)) and item.score
    ]
    corners = points[:1]
    for x, y in points[1:]:
        corners += [(x, corners[-1][1]), (x, y)]
    return corners


def _front(panel: Any, items: Sequence[Configuration], cost: Cost, handles: dict[str, Any]) -> None:
    end = max(value for item in items if (value := cost.value(item)) is not None) / cost.shown
    dense = [item for item in items if not item.pruned]
    styles = {
        DENSE: {"color": "#CFCFCF", "linewidth": 4.0, "solid_joinstyle": "miter"},
        ALL: {"color": "#333333", "linewidth": 0.9},
    }
    for name, chosen in ((DENSE, dense), (ALL, items)):
        if corners := _steps(chosen, cost):
            corners.append((end, corners[-1][1]))
            (handles[name],) = panel.plot(*zip(*corners, strict=True), zorder=1, **styles[name])


def _name_sizes(panel: Any, items: Sequence[Configuration], cost: Cost) -> None:
    """Writes the size beside each member of the front, where it covers no point and no other name; else nowhere."""
    from matplotlib.transforms import Bbox

    def around(x: float, y: float, width: float, height: float) -> Any:
        return Bbox.from_bounds(x - width / 2, y - height / 2, width, height)

    frame, dot = panel.get_window_extent().padded(-3), 6 * DPI / 72
    known = [(item, value) for item in items if (value := cost.value(item)) is not None]
    places = {
        id(item): tuple(
            panel.transData.transform((value / cost.shown, POINTS * (item.score.mean if item.score else 0)))
        )
        for item, value in known
    }
    taken = [around(x, y, dot, dot) for x, y in places.values()]
    corners = [tuple(panel.transData.transform(corner)) for corner in _steps(items, cost)]
    for (x, y), (x1, y1) in pairwise(corners):
        taken.append(Bbox([[min(x, x1), min(y, y1)], [max(x, x1) + 1, max(y, y1) + 1]]))
    for item in front(items, [cost]):
        x, y = places[id(item)]
        text = panel.text(
            *(0.5, 0.5), label(item.size, 18), ha="center", va="center", fontsize=LABEL_SIZE, color="#333333"
        )
        box = text.get_window_extent()
        for across, up in _PLACES:
            at = (x + across * (box.width + 1.6 * dot), y + up * (box.height + 0.4 * dot))
            place = around(*at, box.width, box.height)
            inside = frame.x0 <= place.x0 and place.x1 <= frame.x1 and frame.y0 <= place.y0 and place.y1 <= frame.y1
            if inside and not any(place.overlaps(other) for other in taken):
                text.set_position(panel.transData.inverted().transform(at))
                taken.append(place)
                break
        else:
            text.remove()
