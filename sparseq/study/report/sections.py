"""The parts of the report in their order, each with sentences, tables and figures."""

from collections.abc import Iterable
from dataclasses import dataclass

from sparseq.terminal import counted

from .by_task import task_tables
from .configurations import MB, Configurations
from .curves import curve_figure
from .fronts import front_table, pruning_table
from .interactions import interaction_table
from .ratios import definition, ratio_tables
from .recipe import advice, limits_text
from .recommend import Limits
from .reduction import PAPER_BYTES, STORED_BYTES, Reduction, costs
from .scatter import front_figures
from .style import Figure, styled
from .summary import (
    common_table,
    conditions_table,
    drift_table,
    failed_table,
    machine_table,
    summary_table,
    ways_table,
)
from .table import Table


@dataclass(frozen=True)
class Section:
    """A part of the report. name: for links to it. commands: shown as code, after the sentences."""

    name: str
    title: str
    sentences: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()


def sections(study: Configurations, tolerance: float, interpolate: bool, limits: Limits) -> list[Section]:
    """All sections. Figures are drawn here."""
    with styled():
        curves = [figure for cost in (PAPER_BYTES, STORED_BYTES) if (figure := curve_figure(study, cost)) is not None]
        fronts = front_figures(study)
    measured = costs(study)
    ratios = [table for cost in measured for table in ratio_tables(Reduction(study, cost, tolerance, interpolate))]
    front_tables = [front_table(study), *([pruning_table(study)] if study.batches else [])]
    return [
        Section("summary", "Summary", tuple(_summary(study)), tables=_there(summary_table(study), failed_table(study))),
        _recipe(study, limits),
        Section(
            "ratios",
            "Size and time at the same score",
            tuple(definition(tolerance, interpolate=interpolate, several=len(study.tasks) > 1)),
            tables=tuple(ratios),
        ),
        _interactions(interaction_table(study, measured, tolerance, interpolate=interpolate)),
        Section(
            "curves",
            "Score against size",
            (
                "Each line is a set of methods over the sizes; pruned models are hollow and dashed. Bars are standard "
                "errors: over seeds, or over rows for a single seed. A missing point interrupts its line, and the mean "
                "has only points that every task has. Axes of scores do not begin at zero.",
            ),
            figures=tuple(curves),
        ),
        Section(
            "fronts",
            "Score against bytes and time",
            (
                "Each point is a configuration; hollow ones are pruned. Where the front of all models lies above the "
                "front of dense models, a pruned model is better than every dense one, shallower ones included. Bars "
                "are the standard errors of the members of the front of all models, beside which is their size.",
                *([] if study.batches else ["No cell was timed, so that there are no fronts of time."]),
            ),
            tables=tuple(front_tables),
            figures=tuple(fronts),
        ),
        Section("configurations", "All configurations", tables=tuple(task_tables(study))),
        Section(
            "conditions",
            "Conditions",
            tables=_there(
                machine_table(study),
                ways_table(study),
                drift_table(study),
                conditions_table(study),
                common_table(study),
            ),
        ),
    ]


def _summary(study: Configurations) -> Iterable[str]:
    records = study.results.records
    done = sum(record.done for record in records)
    yield (
        f"Cells done: {done:,} of {len(records):,}. The study has {counted(len(study.tasks), 'task')}, "
        f"{counted(len(study.sizes), 'size')} and {counted(len(study.method_sets), 'set')} of methods. Scores are in "
        f"points of 100, MB are {MB:,.0f} bytes, and a dash is a number that is missing."
    )
    if done < len(records):
        yield "The study is not complete: means are over the cells that are done, and say over how many."
    if not any(item.held_out for item in study.items):
        yield "No cell has a held-out score."


def _interactions(table: Table) -> Section:
    combined = bool(table.rows)
    sentences = () if combined else ("The study has no combination together with each of its methods alone.",)
    return Section("interactions", "Do the methods multiply?", sentences, tables=(table,) if combined else ())


def _recipe(study: Configurations, limits: Limits) -> Section:
    title = "Recommended recipe"
    if not limits.given:
        return Section("recipe", title, ("No limits were given: a recipe is recommended within --max-drop, --max-ms or "
                                         "--max-mb.",))  # fmt: skip
    found = advice(study, limits)
    sentences = (f"Asked for: {limits_text(limits)}.", *found.sentences)
    return Section("recipe", title, sentences, found.commands, found.tables)


def _there(*tables: Table | None) -> tuple[Table, ...]:
    return tuple(table for table in tables if table is not None)
