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
from bench.render import caption
from sparseq.errors import InputError

IMAGES = ROOT / "docs" / "images"
OURS, THEIRS = COLOURS[0], "#555555"
# Where a label may stand beside its point: (x, y) as parts of the room around it, the nearest first.
PLACES = tuple(
    (distance * x, distance * y)
    for distance in (1.0, 2.2, 3.6, 5.0, 6.5, 8.0)
    for x, y in ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
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
    from matplotlib.ticker import FuncFormatter, NullFormatter

    with pyplot.rc_context(STYLE):
        figure, axes = pyplot.subplots(figsize=(9.5, 5.6), layout="constrained")
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
        plain = FuncFormatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_major_formatter(plain)
        axes.xaxis.set_minor_formatter(plain if max(times) < 10 * min(times) else NullFormatter())
        case = row["case"]
        axes.set_xlabel("ms a sentence (logarithmic)")
        axes.set_ylabel(f"{result['settings'].get('score', 'score')}, %, of {case['sentences']:,} sentences")
        figure.suptitle(f"{case['model']}: {case['workload']}\n{caption(result).strip()}", fontsize=10)
        figure.canvas.draw()
        _label(axes, found)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
        pyplot.close(figure)


def _label(axes: Any, found: Sequence[Point]) -> None:
    """Writes each point's name at the nearest place where it covers neither a point nor another name."""
    from matplotlib.transforms import Bbox

    to_pixels = axes.transData.transform
    frame = axes.get_window_extent()
    centres = [to_pixels((one.milliseconds, one.score)) for one in found]
    size = 7 * axes.figure.dpi / 72
    taken = [Bbox.from_bounds(x - size / 2, y - size / 2, size, size) for x, y in centres]
    for one, (x, y) in sorted(zip(found, centres, strict=True), key=lambda pair: -pair[1][1]):
        label = axes.annotate(
            _short(one.name),
            (one.milliseconds, one.score),
            xytext=(0, 0),
            textcoords="offset pixels",
            fontsize=8,
            color=OURS if one.ours else THEIRS,
            ha="center",
            va="center",
            annotation_clip=False,
        )
        box = label.get_window_extent()
        for across, up in PLACES:
            dx = across * size + (across > 0) * box.width / 2 - (across < 0) * box.width / 2
            dy = up * size * 1.2
            place = Bbox.from_bounds(x + dx - box.width / 2, y + dy - box.height / 2, box.width, box.height)
            inside = frame.x0 <= place.x0 and place.x1 <= frame.x1 and frame.y0 <= place.y0 and place.y1 <= frame.y1
            if inside and not any(place.overlaps(other) for other in taken):
                break
        label.set_position((dx, dy))
        taken.append(place)
        if max(abs(across), abs(up)) > 2:
            axes.annotate(
                "",
                (one.milliseconds, one.score),
                xytext=(dx - (across > 0) * box.width / 2 + (across < 0) * box.width / 2, dy),
                textcoords="offset pixels",
                arrowprops={"arrowstyle": "-", "color": "#AAAAAA", "linewidth": 0.6, "shrinkB": 3},
                zorder=1,
            )


def _short(name: str) -> str:
    """Without what the axes say already."""
    return name.replace(" blocks removed", "")


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
    raise SystemExit(main())
