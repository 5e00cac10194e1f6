"""The printed summary of a run or dry run, and suggestions for the next commands."""

import shlex

from rich.table import Table

from sparseq.paths import nearby
from sparseq.tasks.held_out import HELD_OUT

from . import advice
from .plan import DryRun
from .progress import SafeConsole
from .recipe import Recipe
from .result import RunResult
from .settings import flag

# The settings that determine which rows are read and how.
DATA_SETTINGS = (
    "task", "data_dir", "train_file", "validation_file", "dataset", "train_split", "validation_split",
    "text_columns", "label_column", "label_kind",
    "max_train_rows", "max_validation_rows", "held_out_rows", "max_length",
)  # fmt: skip


def result_table(result: RunResult) -> Table:
    """One number per row: the score of the saved model and before packing, its metrics, sizes, and settings."""
    methods = " + ".join(result.methods) or "plain fine-tuning"
    table = Table(title=f"{result.task}: {methods}, seed {result.seed}", show_header=False, title_justify="left")
    table.add_column()
    table.add_column(justify="right")
    table.add_row("score of the saved model", f"{result.score:.4f}")
    if result.held_out_score is not None:
        table.add_row("score on held-out training rows", f"{result.held_out_score:.4f}")
    table.add_row("score before packing", f"{result.score_before_packing:.4f}")
    if result.teacher_score is not None:
        table.add_row("score of the teacher", f"{result.teacher_score:.4f}")
    if result.drop is not None:
        drop = f"{abs(result.drop.points):.2f} ({result.drop.standard_error:.2f})"
        table.add_row(f"points {result.drop.side} the baseline (standard error)", drop)
    for name, value in result.metrics.items():
        table.add_row(name, f"{value:.4f}")
    if result.sparsity is not None:
        table.add_row(
            f"sparsity reached, {result.pattern} (asked: {result.sparsity:g})", f"{result.sparsity_reached:.4f}"
        )
    if result.bits is not None:
        table.add_row("bits a weight", str(result.bits))
        if result.embedding_bits not in (None, result.bits):
            table.add_row("bits a weight of embeddings", str(result.embedding_bits))
    if result.vocabulary:
        table.add_row("tokens kept", f"{result.vocabulary['after']:,} of {result.vocabulary['before']:,}")
    table.add_row("parameters", f"{result.parameters:,}")
    table.add_row("kept by the masks", f"{result.nonzero:,}")
    table.add_row("paper size", f"{result.paper_bytes / 1e6:.2f} MB")
    table.add_row("stored size", f"{result.stored_bytes / 1e6:.2f} MB")
    table.add_row("training rows, steps", f"{result.rows['train']:,}, {result.steps:,}")
    if result.kept_step is not None:
        rows = "held-out" if result.selected_on == HELD_OUT else "validation"
        table.add_row(f"weights of step, the best on the {rows} rows", f"{result.kept_step:,}")
    table.add_row("wall time", f"{result.seconds:.1f} s")
    return table


def show_result(result: RunResult, recipe: Recipe | None = None) -> None:
    """Prints the result to stdout, and with the run's `recipe` suggestions for the next commands."""
    console = SafeConsole()
    console.print(result_table(result))
    if result.selected_on is not None and result.selected_on != HELD_OUT:
        console.print("chosen by the rows that it is scored on, so that the score is too good: see --held-out-rows")
    for line in advice.at_end(result.layers_past_95):
        console.print(line)
    if recipe is not None:
        console.print("next:")
        for what, command in next_commands(result, recipe):
            console.print(f"  {what}\n    {command}")


def show_dry_run(found: DryRun) -> None:
    """Prints the expected sizes of a run to stdout; its plan was reported before."""
    console = SafeConsole()
    table = Table(title="nothing was trained or written; the model would have", show_header=False, title_justify="left")
    table.add_column()
    table.add_column(justify="right")
    table.add_row("parameters", f"{found.parameters:,}")
    table.add_row("kept by the masks", f"{found.nonzero:,}")
    table.add_row("paper size", f"{found.paper_bytes / 1e6:.2f} MB")
    table.add_row("stored size", f"{found.stored_bytes / 1e6:.2f} MB")
    table.add_row("training steps", f"{found.plan.steps:,}")
    console.print(table)


def next_commands(result: RunResult, recipe: Recipe) -> list[tuple[str, str]]:
    """(purpose, command) for what a user may do next with the folder, in the current one; quoted for a shell."""
    folder = nearby(result.out.rstrip("/"))
    out = shlex.quote(folder)
    pair = ' --text-pair "..."' if len(result.task_definition["columns"]) == 2 else ""
    commands = [
        ("label a text", f'sparseq predict {out} "..."{pair}'),
        ("score it again, or on other data", f"sparseq evaluate {out}"),
        ("see the size of each layer", f"sparseq size {out}"),
    ]
    if not result.methods:
        data = [
            f"{flag(name)} {shlex.quote(','.join(value) if isinstance(value, tuple) else nearby(str(value)))}"
            for name in DATA_SETTINGS
            if (value := getattr(recipe, name)) not in (None, (), getattr(Recipe(), name))
        ]
        student = shlex.quote(f"{folder}-student")
        command = f"sparseq compress --model {out} --teacher {out} {' '.join(data)} --out {student}"
        commands.append(("compress it, with itself as the teacher (--layers N makes it shallower)", command))
    return commands
