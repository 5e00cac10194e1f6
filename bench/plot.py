"""Draws what `python -m bench run` measured: time, and fraction of the roofline, over the number of rows.

Needs matplotlib (`pip install 'sparseq[bench]'`), which is imported when a figure is drawn.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.kernels.cases import OURS, Case
from bench.roofline import roof
from sparseq import InputError

FORMATS = (".svg", ".png", ".pdf")
MOST_LAYERS = 6
# Okabe and Ito's colours, which the colour-blind can tell apart; the first is ours.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "svg.fonttype": "none",
}
ROOFLINE = "roofline"
Row = Mapping[str, Any]


def require(path: Path, cases: Sequence[Case]) -> None:
    """InputError unless these cases can be drawn to that file."""
    if path.suffix not in FORMATS:
        raise InputError(f"--plot writes {', '.join(FORMATS)} files, and got {str(path)!r}")
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise InputError("--plot needs matplotlib: pip install 'sparseq[bench]'") from error
    if any("M" not in case.described for case in cases):
        raise InputError("--plot draws times over M, the number of rows, which this op does not have")
    layers = layers_of([case.described for case in cases])
    if len(layers) > MOST_LAYERS:
        raise InputError(f"--plot draws {MOST_LAYERS} layers at most, not {len(layers)}: choose some by --shape")


def layers_of(cases: Sequence[Mapping[str, Any]]) -> list[str]:
    """The layers that have a row of panels each, in the order of the cases."""
    return list(dict.fromkeys(str(case["layer"]) for case in cases))


def draw(result: Mapping[str, Any], path: Path, where: str) -> None:
    """Writes the figure: two panels a layer, a line for each candidate. where: the machine, in words."""
    rows = result["rows"]
    layers = layers_of([row["case"] for row in rows])
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = list(dict.fromkeys(name for row in rows for name in row["seconds"]))
    with pyplot.rc_context(STYLE):
        figure, panels = pyplot.subplots(
            len(layers), 2, figsize=(9.5, 0.9 + 2.9 * len(layers)), squeeze=False, layout="constrained"
        )
        for line, layer in zip(panels, layers, strict=True):
            of_layer = [row for row in rows if str(row["case"]["layer"]) == layer]
            chosen = sorted(of_layer, key=lambda row: row["case"]["M"])
            _times(line[0], chosen, names)
            _fractions(line[1], chosen, names)
            line[0].set_title(f"K -> N: {layer}" if "->" in layer else f"width {layer}", loc="left", fontsize=9)
        handles, found = panels[0][0].get_legend_handles_labels()
        known = dict(zip(found, handles, strict=True))
        labels = [name for name in [*names, ROOFLINE] if name in known]
        shown = [known[name] for name in labels]
        figure.legend(shown, labels, loc="outside lower center", ncols=min(5, len(labels)), frameon=False)
        step = rows[0]["case"]["step"]
        figure.suptitle(f"{result['name']}, {step}, {result['settings']['dtype']}\n{where}", fontsize=10)
        figure.savefig(path, dpi=150)
        pyplot.close(figure)


def _style(names: Sequence[str], name: str) -> dict[str, Any]:
    number = names.index(name)
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
        "markersize": 4,
        "linewidth": 2.0 if name == OURS else 1.2,
        "zorder": 3 if name == OURS else 2,
        "label": name,
    }


def _times(panel: Any, rows: Sequence[Row], names: Sequence[str]) -> None:
    """Time of a call with 95 % intervals, and the roofline below."""
    from matplotlib.ticker import EngFormatter

    for name in names:
        there = [row for row in rows if name in row["seconds"]]
        at = [row["case"]["M"] for row in there]
        taken = [row["seconds"][name] for row in there]
        median = [one["median"] for one in taken]
        spread = [[abs(one[end] - one["median"]) for one in taken] for end in ("low", "high")]
        panel.errorbar(at, median, yerr=spread, elinewidth=0.8, capsize=2, **_style(names, name))
    floors = [(row["case"]["M"], found["seconds"]) for row in rows if (found := roof(row))]
    if floors:
        panel.plot(*zip(*floors, strict=True), color="#777777", linestyle="--", linewidth=1.0, label=ROOFLINE)
    panel.set_yscale("log")
    panel.yaxis.set_major_formatter(EngFormatter(unit="s"))
    panel.set_ylabel("time of a call")
    _rows_axis(panel, rows)


def _fractions(panel: Any, rows: Sequence[Row], names: Sequence[str]) -> None:
    from matplotlib.ticker import PercentFormatter

    for name in names:
        points = [
            (row["case"]["M"], found["seconds"] / row["seconds"][name]["median"])
            for row in rows
            if name in row["seconds"] and (found := roof(row))
        ]
        if points:
            panel.plot(*zip(*points, strict=True), **_style(names, name))
    panel.axhline(1.0, color="#777777", linestyle="--", linewidth=1.0)
    panel.set_ylim(bottom=0.0)
    panel.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    panel.set_ylabel("fraction of the roofline")
    _rows_axis(panel, rows)


def _rows_axis(panel: Any, rows: Sequence[Row]) -> None:
    """M on a logarithmic axis that is labelled where something was measured."""
    at = sorted({row["case"]["M"] for row in rows})
    panel.set_xscale("log", base=2)
    panel.set_xticks(at, [str(M) for M in at])
    panel.minorticks_off()
    panel.set_xlabel("M (rows)")
