"""The table of each task: every configuration with all that was measured."""

from sparseq.drop import POINTS
from sparseq.study.records import Latency

from .configurations import MB, Configuration, Configurations, method_label, setting_text
from .statistics import OVER_ROWS, Estimate
from .table import Cell, Column, Noted, Table

ABOUT = (
    "Means over the seeds that are done. The standard error is over seeds, and does not include the choice of rows; "
    'marked "rows", it is the binomial one of a single seed over the validation rows. Recipes are chosen by the '
    "held-out score. Smaller: stored bytes of the size's plain model, and of the teacher, divided by its own. "
    "Speed-up: the time of the teacher in the same process divided by its own, the mean over seeds, from the lowest "
    "end to the highest of the seeds' 95 % intervals."
)


def task_tables(study: Configurations) -> list[Table]:
    """One table a task, in the order of the study file."""
    return [_table(study, task, number) for number, task in enumerate(study.tasks, 1)]


def _table(study: Configurations, task: str, number: int) -> Table:
    metric = study.results.metrics.get(task, "score")
    columns = [
        Column("size"),
        Column("methods"),
        Column("settings"),
        Column("seeds", digits=0, noted=True),
        Column(metric, "points", 2),
        Column("standard error", "points", 2, noted=True),
        Column("held out", "points", 2),
        Column("sparsity", "%", 1),
        Column("paper size", "MB", 1),
        Column("stored size", "MB", 1),
        Column("smaller than plain", "times", 2),
        Column("smaller than teacher", "times", 2),
    ]
    for batch in study.batches:
        columns += [
            Column(f"time, batch {batch}", "ms", 3),
            Column(f"speed-up, batch {batch}", "times", 2),
            Column(f"speed-up low, batch {batch}", "times", 2, on_page=False),
            Column(f"speed-up high, batch {batch}", "times", 2, on_page=False),
        ]
    rows = tuple(_row(study, item) for item in study.of(task))
    return Table(f"task-{number}", f"All configurations: {task}", tuple(columns), rows, ABOUT)


def error_cell(score: Estimate | None) -> Noted:
    """A score's standard error in points, marked where it is not over seeds."""
    if score is None or score.error is None:
        return Noted(None)
    return Noted(POINTS * score.error, "(rows)" if score.over == OVER_ROWS else "")


def latency_cells(found: Latency | None) -> list[Cell]:
    """Milliseconds, the speed-up with its interval beside it, and the interval's ends."""
    if found is None:
        return [None] * 4
    ends = f"({found.speedup_low:.2f} to {found.speedup_high:.2f})"
    return [found.milliseconds, Noted(found.speedup, ends), found.speedup_low, found.speedup_high]


def _row(study: Configurations, item: Configuration) -> tuple[Cell, ...]:
    score, held_out = item.score, item.held_out
    baseline = study.baseline(item.task, item.size)
    teacher = study.teacher(item.task)
    cells: list[Cell] = [
        item.size,
        method_label(item.methods),
        setting_text(item.settings),
        Noted(item.seeds_done, f"of {item.seeds_planned}"),
        _times(score.mean if score else None, POINTS),
        error_cell(score),
        _times(held_out.mean if held_out else None, POINTS),
        _times(item.sparsity, 100.0),
        _times(item.paper_bytes, 1 / MB),
        _times(item.stored_bytes, 1 / MB),
        _ratio(baseline.stored_bytes if baseline else None, item.stored_bytes),
        _ratio(teacher.stored_bytes if teacher else None, item.stored_bytes),
    ]
    for batch in study.batches:
        cells += latency_cells(item.latency(batch))
    return tuple(cells)


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _ratio(value: float | None, by: float | None) -> float | None:
    return value / by if value and by else None
