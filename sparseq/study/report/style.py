"""How the figures look: colours and markers of methods and settings, and figures as files.

A colour is a set of methods without pruning. Pruned models have the colour of the same set, with hollow markers and
dashed lines; the marker's shape is the setting. So eight sets of methods need four colours.

Needs matplotlib (`pip install 'sparseq[study]'`), which is imported when a figure is drawn.
"""

import contextlib
import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sparseq.errors import InputError
from sparseq.extras import install
from sparseq.terminal import shown

from .configurations import PRUNING, Configuration, Configurations, Settings, method_label, setting_text
from .table import LONGEST

# Okabe and Ito's colours, which the colour-blind can tell apart.
COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "D", "^", "v", "P", "X")
DPI = 150
MOST_LINES = 3
"""Settings of a method that are told apart: of more, the best points are one line, and all have the same marker."""

PANEL = (4.7, 3.5)
"""Inches of a panel."""

STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.6,
    "svg.hashsalt": "sparseq",
    "text.parse_math": False,  # names may have dollar signs
}


@dataclass(frozen=True)
class Figure:
    """A drawn figure. name: of its files, without ending. alt: what it shows, for those who cannot see it."""

    name: str
    title: str
    alt: str
    png: bytes
    svg: bytes


def require() -> None:
    """InputError unless figures can be drawn."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise InputError(f"the report's figures need matplotlib: {install('study')}") from error


@contextlib.contextmanager
def styled() -> Iterator[None]:
    """Figures inside the block have the report's style. Characters that the font lacks are drawn as boxes, silently."""
    import matplotlib

    with warnings.catch_warnings(), matplotlib.rc_context(STYLE):
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


@dataclass(frozen=True)
class Sheet:
    """A figure being drawn, of panels in at most two columns. spare: a place without a panel, if there is one."""

    figure: Any
    panels: list[Any]
    spare: Any

    @classmethod
    def of(cls, count: int, height: float = PANEL[1]) -> "Sheet":
        # Without pyplot, whose state is global.
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure as Drawing

        columns = min(count, 2)
        lines = -(-count // columns)
        width = PANEL[0] * columns if columns > 1 else 1.35 * PANEL[0]
        size = (width, height * lines + (0.9 if count == lines * columns else 0.2))
        figure = Drawing(figsize=size, dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)
        found = list(figure.subplots(lines, columns, squeeze=False).flat)
        for unused in found[count:]:
            unused.set_axis_off()
        return cls(figure, found[:count], found[count] if count < len(found) else None)

    def legend(self, handles: dict[str, Any]) -> None:
        """One legend, in the spare place or below all panels."""
        longest = max(map(len, handles), default=0)
        columns = 3 if longest <= 26 else 2
        if self.figure.get_figwidth() < 1.5 * PANEL[0]:
            columns = 2 if longest <= 36 else 1
        style = {"frameon": False, "handlelength": 2.4, "columnspacing": 1.4}
        if self.spare is not None:
            columns = 2 if longest <= 26 and len(handles) > 9 else 1
            self.spare.legend(list(handles.values()), list(handles), loc="center", ncols=columns, **style)
        else:
            self.figure.legend(
                list(handles.values()), list(handles), loc="outside lower center", ncols=columns, **style
            )

    def freeze(self) -> None:
        """Lays the figure out, once for all files and for what is placed on it by hand."""
        self.figure.draw_without_rendering()
        self.figure.set_layout_engine("none")

    def finish(self, name: str, title: str, alt: str) -> Figure:
        """The figure as files. The same figure always gives the same bytes."""
        images = {}
        for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
            stream = io.BytesIO()
            self.figure.savefig(stream, format=kind, dpi=DPI, metadata=metadata)
            images[kind] = stream.getvalue()
        return Figure(name, title, alt, images["png"], images["svg"])


def label(text: object, limit: int = LONGEST) -> str:
    """A name for a figure. matplotlib hides labels that begin with an underscore."""
    found = shown(text, limit=limit)
    return f" {found}" if found.startswith("_") else found


class Looks:
    """The look of each line of a study: a set of methods with a setting."""

    def __init__(self, study: Configurations) -> None:
        self.study = study
        dense = [tuple(m for m in methods if m != PRUNING) for methods in study.method_sets]
        self._colours = {methods: COLOURS[i % len(COLOURS)] for i, methods in enumerate(dict.fromkeys(dense))}
        self._numbers = {
            methods: {key: i for i, key in enumerate(study.lines(methods))} for methods in study.method_sets
        }

    def in_legend(self, methods: tuple[str, ...], line: Settings | None) -> tuple[bool, int]:
        """A key that sorts a legend: dense methods first, then pruned ones, setting by setting."""
        return PRUNING in methods, self._number(methods, line)

    def _number(self, methods: tuple[str, ...], line: Settings | None) -> int:
        return 0 if line is None else self._numbers[methods][line]

    def of(self, methods: tuple[str, ...], line: Settings | None) -> dict[str, Any]:
        """Arguments of plot. line: its key in `Configurations.lines`, or None for all of a method's lines together."""
        colour = self._colours[tuple(m for m in methods if m != PRUNING)]
        pruned = PRUNING in methods
        number = self._number(methods, line)
        return {
            "color": colour,
            "marker": MARKERS[number % len(MARKERS)],
            "markerfacecolor": "white" if pruned else colour,
            "markersize": 5,
            "linestyle": "--" if pruned else "-",
            "linewidth": 1.2,
        }

    def of_item(self, item: Configuration) -> dict[str, Any]:
        """Arguments of plot for the item's point."""
        return self.of(item.methods, self._key(item))

    def order_of_item(self, item: Configuration) -> tuple[bool, int]:
        """As `in_legend`."""
        return self.in_legend(item.methods, self._key(item))

    def _key(self, item: Configuration) -> Settings | None:
        return None if self._many(item) else self.study.line_key(item)

    def name_of_item(self, item: Configuration) -> str:
        """Of the points that look like the item's."""
        return label(method_label(item.methods), 44) if self._many(item) else self.name(item)

    def _many(self, item: Configuration) -> bool:
        return len(self._numbers[item.methods]) > MOST_LINES

    def best_name(self, methods: tuple[str, ...], count: int) -> str:
        """Of the best of a method's settings."""
        return label(f"{method_label(methods)}, best of {count} settings", 44)

    def name(self, item: Configuration) -> str:
        """Of the item's line, such as "QAT+MP, sparsity 0.6"."""
        settings = setting_text(self.study.line(item))
        return label(", ".join(part for part in (method_label(item.methods), settings) if part), 44)
