"""Draws score against latency from a result of `bench.studies.model` that has scores.

    python -m bench.frontier bench/results/model_trained-<cpu>.json [--out FILE]

Needs matplotlib (`pip install 'sparseq[bench]'`), which is imported when a figure is drawn.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.common import ROOT
from bench.plot import COLOURS, STYLE
from bench.program import run_program
from bench.render import caption
from sparseq.errors import InputError

IMAGES = ROOT / "docs" / "images"
OURS, THEIRS = COLOURS[0], "#555555"
DPI = 150
Line = tuple[tuple[float, float], tuple[float, float]]
CROSSING = 12.0  # how many nearer places a crossing of lines is worth
# Where a label may stand beside its point, in (widths of the label's half, heights of a line), the nearest first.
PLACES = sorted(
    ((across, up) for up in range(-9, 10) for across in (-1.0, 0.0, 1.0) if up or across),
    key=lambda place: (abs(place[1]) + 0.5 * (place[0] == 0) + 0.1 * (place[0] < 0), -place[1]),
)


@dataclass(frozen=True)
class Point:
    """A candidate. milliseconds: a sentence, median and 95 % interval. score: in percent."""

    name: str
    milliseconds: float
    low: float
    high: float
    score: float
    ours: bool


def picture_of(result: Path) -> Path:
    """Where the figure of a result file belongs."""
    return IMAGES / f"{result.stem}.png"


def points(result: Mapping[str, Any]) -> list[Point]:
    """Of the result's row with scores. Raises InputError without one."""
    row = next((row for row in result["rows"] if row.get("scores")), None)
    if row is None:
        raise InputError(f"the result {result['name']!r} has no scores: time folders with --sentences and their labels")
    known = result["settings"]["models"][row["case"]["model"]]
    per_sentence = row["case"]["sentences"] / -(-row["case"]["sentences"] // row["case"]["batch"])
    return [
        Point(
            name,
            1e3 * row["seconds"][name]["median"] / per_sentence,
            1e3 * row["seconds"][name]["low"] / per_sentence,
            1e3 * row["seconds"][name]["high"] / per_sentence,
            100 * score,
            known.get(name, {}).get("packed_layers", 0) > 0,
        )
        for name, score in row["scores"].items()
    ]


def draw(result: Mapping[str, Any], path: Path) -> None:
    """Writes the figure: a point a candidate with its name beside it, ours in colour."""
    found = points(result)
    row = next(row for row in result["rows"] if row.get("scores"))
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    with pyplot.rc_context(STYLE):
        figure, axes = pyplot.subplots(figsize=(9.5, 5.6), dpi=DPI, layout="constrained")
        for one in found:
            spread = [[one.milliseconds - one.low], [one.high - one.milliseconds]]
            colour = OURS if one.ours else THEIRS
            axes.errorbar(
                one.milliseconds,
                one.score,
                xerr=spread,
                color=colour,
                marker="o" if one.ours else "s",
                markersize=6 if one.ours else 5,
                markerfacecolor=colour if one.ours else "white",
                elinewidth=0.8,
                linestyle="none",
                zorder=3,
            )
        axes.set_xscale("log")
        times, scores = [one.milliseconds for one in found], [one.score for one in found]
        axes.set_xlim(min(times) / 1.6, max(times) * 1.8)
        room = max(max(scores) - min(scores), 2.0)
        axes.set_ylim(min(scores) - 0.25 * room, max(scores) + 0.35 * room)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        case = row["case"]
        axes.set_xlabel("ms a sentence (logarithmic)")
        axes.set_ylabel(f"{result['settings'].get('score', 'score')}, %, of {case['sentences']:,} sentences")
        figure.suptitle(f"{case['model']}: {case['workload']}\n{caption(result).strip()}", fontsize=10)
        figure.canvas.draw()
        _label(axes, found)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=DPI)
        pyplot.close(figure)


def _label(axes: Any, found: Sequence[Point]) -> None:
    """Writes each point's name near it, where it covers neither a point nor another name; with a line to the point
    where that is above or below, which crosses as few lines and names as can be."""
    from matplotlib.path import Path as MplPath
    from matplotlib.transforms import Bbox

    def centred(x: float, y: float, width: float, height: float) -> Any:
        return Bbox.from_bounds(x - width / 2, y - height / 2, width, height)

    frame, size = axes.get_window_extent(), 8 * DPI / 72
    centres = [tuple(axes.transData.transform((one.milliseconds, one.score))) for one in found]
    taken = [centred(x, y, size, size) for x, y in centres]
    lines: list[Line] = []
    for one, (x, y) in sorted(zip(found, centres, strict=True), key=lambda pair: pair[1]):
        where = {"xy": (one.milliseconds, one.score), "textcoords": "offset pixels", "va": "center", "ha": "center"}
        label = axes.annotate(_short(one.name), **where, xytext=(0, 0), fontsize=8, color=OURS if one.ours else THEIRS)
        box = label.get_window_extent()
        # To the left of what another point stands right of, so that lines of a row of points fan out.
        side = -1 if any(0 < other[0] - x < 6 * size and abs(other[1] - y) < 2 * size for other in centres) else 1
        best: tuple[float, Any, Line] | None = None
        for far, (across, up) in enumerate(PLACES):
            dx, dy = side * across * (box.width / 2 + size), up * 1.25 * box.height
            place = centred(x + dx, y + dy, box.width, box.height)
            inside = frame.x0 <= place.x0 and place.x1 <= frame.x1 and frame.y0 <= place.y0 and place.y1 <= frame.y1
            if not inside or any(place.overlaps(other) for other in taken):
                continue
            end = (min(max(x, place.x0), place.x1), min(max(y, place.y0), place.y1))
            line = ((x, y), end)
            crossed = sum(_cross(line, other) for other in lines)
            crossed += sum(MplPath(line).intersects_bbox(other, filled=True) for other in taken[len(found) :])
            crossed += sum(MplPath(other).intersects_bbox(place, filled=True) for other in lines)
            cost = far + CROSSING * crossed
            if best is None or cost < best[0]:
                best = cost, place, line
        if best is None:  # no room is left: it stays on its point
            continue
        _, place, line = best
        label.set_position(((place.x0 + place.x1) / 2 - x, (place.y0 + place.y1) / 2 - y))
        taken.append(place)
        if line[1][1] != y:
            lines.append(line)
            arrow = {"arrowstyle": "-", "color": "#999999", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3}
            axes.annotate("", **where, xytext=(line[1][0] - x, line[1][1] - y), arrowprops=arrow, zorder=1)


def _cross(one: Line, other: Line) -> bool:
    """Whether two lines cross."""

    def beside(line: Line, at: tuple[float, float]) -> float:
        (x0, y0), (x1, y1) = line
        return (x1 - x0) * (at[1] - y0) - (y1 - y0) * (at[0] - x0)

    return all(beside(a, b[0]) * beside(a, b[1]) < 0 for a, b in ((one, other), (other, one)))


def _short(name: str) -> str:
    """What is pruned here was not trained after that, which its score shows."""
    return name.replace("blocks removed", "blocks, untrained")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Draws score against latency from a result file.")
    parser.add_argument("result", type=Path, help="a result of bench.studies.model that has scores")
    parser.add_argument("--out", type=Path, help="the figure; docs/images/<result>.png if not given")
    given = parser.parse_args(argv)
    path = given.out or picture_of(given.result)
    draw(json.loads(given.result.read_text(encoding="utf-8")), path)
    print(f"written: {path}")
    return 0


if __name__ == "__main__":
    run_program(main)
