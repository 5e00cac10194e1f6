"""Results of several models side by side: a table, bars, a figure, and a verdict in words."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from sparseq.paired import PairedAnswers

COLOURS = ("#8c8c8c", "#4c72b0", "#dd8452", "#55a868", "#8172b3")
BAR_WIDTH = 40
ALLOWED_LOSS = 0.01
# A difference of at most this many standard errors is attributed to chance.
NOISE = 2


@dataclass(frozen=True)
class ModelRow:
    """Measured numbers of one model.

    accuracy: a fraction. milliseconds: per sentence, by batch size. Sizes are in bytes.
    """

    name: str
    accuracy: float
    parameters: int
    paper_bytes: int
    stored_bytes: int
    milliseconds: dict[int, float]

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def comparison_table(rows: Sequence[ModelRow], title: str) -> Table:
    """One column per model; ratios are relative to the first one, which is the reference."""
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for row in rows:
        table.add_column(row.name, justify="right")
    first = rows[0]
    lines: dict[str, list[str]] = {
        "accuracy": [f"{r.accuracy:.1%}" for r in rows],
        "parameters": [f"{r.parameters / 1e6:.1f} M" for r in rows],
        "size as the paper counts it": [f"{r.paper_bytes / 1e6:.1f} MB" for r in rows],
        "size as stored": [f"{r.stored_bytes / 1e6:.1f} MB" for r in rows],
        f"  against the {first.name}": [f"{first.stored_bytes / r.stored_bytes:.1f} x smaller" for r in rows],
    }
    for batch, reference in first.milliseconds.items():
        lines[f"time a sentence, batch {batch}"] = [f"{r.milliseconds[batch]:.2f} ms" for r in rows]
        lines[f"  against the {first.name}, batch {batch}"] = [
            f"{reference / r.milliseconds[batch]:.1f} x faster" for r in rows
        ]
    for label, cells in lines.items():
        against = label.startswith("  against")
        table.add_row(
            label.split(", batch")[0] if against else label,
            cells[0] if not against else "",
            *cells[1:],
            end_section=against,
        )
    return table


def bars(rows: Sequence[ModelRow]) -> Group:
    """Stored size and time as bars for a terminal; the longest bar is the largest value."""
    batch = max(rows[0].milliseconds)
    width = max(len(row.name) for row in rows)
    lines: list[Text] = []
    for heading, unit, values in (
        ("stored size", "MB", [row.stored_bytes / 1e6 for row in rows]),
        (f"time a sentence, batch {batch}", "ms", [row.milliseconds[batch] for row in rows]),
    ):
        lines.append(Text(heading, style="bold"))
        for row, value, colour in zip(rows, values, COLOURS, strict=False):
            filled = max(1, round(BAR_WIDTH * value / max(values)))
            lines.append(
                Text(f"  {row.name:<{width}}  ").append("█" * filled, style=colour).append(f" {value:.3g} {unit}")
            )
    return Group(*lines)


def save_figure(rows: Sequence[ModelRow], path: str | Path, title: str) -> None:
    """Draws accuracy, stored size and time per sentence of each model into a PNG file."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    first, batches = rows[0], list(rows[0].milliseconds)
    panels: list[tuple[str, list[float], list[str]]] = [
        ("accuracy, %", [100 * r.accuracy for r in rows], [f"{r.accuracy:.1%}" for r in rows]),
        (
            "stored size, MB",
            [r.stored_bytes / 1e6 for r in rows],
            [_against(r.stored_bytes / 1e6, first.stored_bytes / r.stored_bytes, "smaller", r is first) for r in rows],
        ),
    ]
    for batch in batches:
        panels.append(
            (
                f"ms a sentence, batch {batch}",
                [r.milliseconds[batch] for r in rows],
                [
                    _against(
                        r.milliseconds[batch], first.milliseconds[batch] / r.milliseconds[batch], "faster", r is first
                    )
                    for r in rows
                ],
            )
        )
    figure, axes = plt.subplots(1, len(panels), figsize=(3.3 * len(panels), 3.6), constrained_layout=True)
    positions = range(len(rows))
    for axis, (heading, values, labels) in zip(axes, panels, strict=True):
        drawn = axis.bar(positions, values, color=COLOURS[: len(rows)], width=0.7)
        axis.bar_label(drawn, labels=labels, padding=3, fontsize=9)
        axis.set_title(heading, fontsize=11)
        axis.set_xticks(list(positions), [r.name.replace(" ", "\n", 1) for r in rows], fontsize=9)
        axis.set_ylim(0, max(values) * 1.25)
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(axis="y", labelsize=8)
    figure.suptitle(title, fontsize=12)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _against(value: float, ratio: float, word: str, reference: bool) -> str:
    return f"{value:.3g}" if reference else f"{value:.3g}\n{ratio:.1f}x {word}"


def verdict(rows: Sequence[ModelRow], paired: PairedAnswers) -> str:
    """Two sentences: whether the compressed student kept the plain student's accuracy, and how certain that is."""
    teacher, _, compressed = rows
    points, error = 100 * paired.lost, 100 * paired.standard_error
    kept = "loses nothing to" if points <= 0 else f"loses {points:.1f} points to"
    judgement, allowed = "", 100 * ALLOWED_LOSS
    if points > allowed + NOISE * error:
        judgement = f", MORE than the {allowed:.0f} point allowed and than chance makes,"
    elif points > allowed:
        judgement = f", more than the {allowed:.0f} point allowed but no more than chance makes,"
    return (
        f"The compressed student {kept} the plain one{judgement} and takes "
        f"{teacher.stored_bytes / compressed.stored_bytes:.1f} times less storage than the teacher. "
        f"Their difference has a standard error of {error:.1f} points on these {paired.rows:,} rows."
    )
