"""A finished run's result, as it is shown."""

from rich.table import Table

from . import advice
from .console import SafeConsole
from .run import RunResult


def result_table(result: RunResult) -> Table:
    """One row a number: the score of the saved model and before packing, its metrics, sizes, and what was asked for."""
    methods = " + ".join(result.methods) or "plain fine-tuning"
    table = Table(title=f"{result.task}: {methods}, seed {result.seed}", show_header=False, title_justify="left")
    table.add_column()
    table.add_column(justify="right")
    table.add_row("score of the saved model", f"{result.score:.4f}")
    table.add_row("score before packing", f"{result.score_before_packing:.4f}")
    for name, value in result.metrics.items():
        table.add_row(name, f"{value:.4f}")
    if result.sparsity is not None:
        table.add_row(
            f"sparsity reached, {result.pattern} (asked: {result.sparsity:g})", f"{result.sparsity_reached:.4f}"
        )
    if result.bits is not None:
        table.add_row("bits a weight", str(result.bits))
    table.add_row("parameters", f"{result.parameters:,}")
    table.add_row("kept by the masks", f"{result.nonzero:,}")
    table.add_row("paper size", f"{result.paper_bytes / 1e6:.2f} MB")
    table.add_row("stored size", f"{result.stored_bytes / 1e6:.2f} MB")
    table.add_row("training rows, steps", f"{result.rows['train']:,}, {result.steps:,}")
    table.add_row("wall time", f"{result.seconds:.1f} s")
    return table


def show_result(result: RunResult) -> None:
    """Prints the result, and what to do next, to stdout."""
    console = SafeConsole()
    console.print(result_table(result))
    second = ' --text-pair "..."' if len(result.task_definition["columns"]) == 2 else ""
    for line in advice.at_end(result.layers_past_95):
        console.print(line)
    console.print(f'try it: sparseq predict {result.out} "..."{second}')
