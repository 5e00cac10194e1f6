"""What `sparseq study run` prints at its end, and with --dry-run."""

from collections import Counter

from rich.table import Table

from sparseq.train.progress import SafeConsole

from .console import span
from .cost import total
from .options import Options
from .records import DONE, FAILED, MISSING, StudyResults
from .run import StudyPlan
from .runner import Summary

_UNKNOWN = "?"


def show_plan(planned: StudyPlan, options: Options) -> None:
    """Prints the cells that would be run, what each takes, and the sums."""
    console = SafeConsole()
    table = Table(title="nothing was run or written; these cells would be", title_justify="left")
    table.add_column("cell", no_wrap=True)
    table.add_column("time", justify="right")
    table.add_column("size", justify="right")
    for cell in planned.to_run:
        cost = planned.costs[cell.name]
        table.add_row(
            cell.name,
            _UNKNOWN if cost.seconds is None else span(cost.seconds),
            _UNKNOWN if cost.disk is None else f"{cost.disk / 1e6:.1f} MB",
        )
    console.print(table)
    seconds, disk, unknown = total(planned.costs)
    done = len(planned.cells) - len(planned.to_run)
    console.print(
        f"{len(planned.cells):,} cells, {done:,} of them done before; {len(planned.to_run):,} to run: about "
        f"{span(seconds / options.jobs)} with --jobs {options.jobs}, and {disk / 1e6:,.0f} MB, besides up to "
        f"{planned.checkpoints / 1e6:,.0f} MB for checkpoints of running cells"
    )
    if unknown:
        console.print(f"{unknown:,} of them are not estimated: their model is not on this machine")
    if planned.is_measured:
        console.print("times are estimated from what the finished cells took")
    else:
        console.print("times are a guess from the speed of a matrix product here, until the first cells have finished")


def show_summary(summary: Summary, results: StudyResults, out: str) -> None:
    """Prints how the study stands, the failed cells with their reasons, and the next command."""
    console = SafeConsole()
    count = Counter(record.state for record in results.records)  # of all cells, those that --only leaves out included
    parts = [f"{count[DONE]:,} of {len(results.records):,} cells done"]
    parts += [f"{count[state]:,} {state}" for state in (FAILED, MISSING) if count[state]]
    console.print(f"{results.name}: {', '.join(parts)}, {span(summary.seconds)}")
    for name, reason in summary.failed.items():
        console.print(f"  {name}: {reason}")
    console.print("next:")
    console.print(f"  see the tables and figures\n    sparseq study report {out}")
    if summary.failed:
        console.print("  the same command tries the failed cells again")
