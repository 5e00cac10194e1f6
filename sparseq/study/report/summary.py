"""What was run: how many cells are done, failed and missing, for how long, on which machines, with what in common."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from sparseq.study.records import DONE, FAILED, MISSING

from .configurations import Configurations, Machine, method_label, setting_text
from .statistics import number
from .table import Cell, Column, Table


def summary_table(study: Configurations) -> Table:
    """Counts of cells by state, for each task and in all, with the hours of those that are done."""
    rows: list[tuple[Cell, ...]] = []
    records = study.results.records
    places = [(task, [record for record in records if record.task == task]) for task in study.tasks]
    for name, found in [*places, ("all", list(records))] if len(places) > 1 else places:
        counts = [sum(record.state == state for record in found) for state in (DONE, FAILED, MISSING)]
        seconds = [value for record in found if (value := number(record.seconds)) is not None]
        rows.append((name, len(found), *counts, sum(seconds) / 3600 if seconds else None))
    return Table(
        "cells",
        "Cells",
        (
            Column("task"),
            Column("cells", digits=0),
            Column("done", digits=0),
            Column("failed", digits=0),
            Column("missing", digits=0),
            Column("time", "hours", 2),
        ),
        tuple(rows),
        "A cell is one run of sparseq compress. Cells that failed or are missing take part in no mean.",
    )


def failed_table(study: Configurations) -> Table | None:
    """The cells that failed, with reasons; None if there are none."""
    rows = tuple(
        (
            record.cell,
            record.task,
            record.size,
            method_label(record.methods),
            setting_text(record.settings),
            record.seed,
            record.reason or "no reason is known",
        )
        for record in study.results.records
        if record.state == FAILED
    )
    names = ("cell", "task", "size", "methods", "settings")
    columns = (*map(Column, names), Column("seed", digits=0), Column("reason"))
    return Table("failed", "Cells that failed", columns, rows) if rows else None


def machine_table(study: Configurations) -> Table | None:
    """The machines that timed cells; None if there are no times."""
    rows = tuple(
        (machine[0] or "unknown", machine[1], count, machine == study.machine)
        for machine, count in study.machines.items()
    )
    return (
        Table(
            "machines",
            "Machines that times were taken on",
            (Column("processor"), Column("threads", digits=0), Column("cells", digits=0), Column("used")),
            rows,
            "Times of different machines cannot be compared: this report uses those of the one that timed most cells.",
        )
        if rows
        else None
    )


def drift_table(study: Configurations) -> Table | None:
    """How much the teacher's time differs between cells, in which it was timed again; None without times."""
    rows: list[tuple[Cell, ...]] = []
    for task in study.tasks:
        for batch in study.batches:
            found = [
                value
                for item in study.of(task)
                for record in item.timed
                if (one := record.latency.get(batch)) and (value := number(one.milliseconds * one.speedup))
            ]
            if found:
                rows.append((task, int(batch) if batch.isdecimal() else batch, min(found), max(found), len(found)))
    return (
        Table(
            "drift",
            "The teacher's time in each cell's process",
            (
                Column("task"),
                Column("batch", digits=0),
                Column("least", "ms", 3),
                Column("most", "ms", 3),
                Column("cells", digits=0),
            ),
            tuple(rows),
            "With one teacher, all would be equal on a machine that never changes its speed. The milliseconds of this "
            "report are the median of these divided by each cell's speed-up, which is measured beside the teacher.",
        )
        if rows
        else None
    )


def ways_table(study: Configurations) -> Table | None:
    """How the encoders of quantized models ran when they were timed; None without such times."""
    found = Counter(
        record.way or "not recorded"
        for task in study.tasks
        for item in study.of(task)
        for record in item.timed
        if record.methods and {"qat", "ptq"} & set(record.methods)
    )
    columns = Column("encoder"), Column("cells", digits=0)
    note = "See sparseq.nn.fused_way. One call of native code is the fastest; layer by layer, nothing runs fused."
    return Table("ways", "How packed encoders ran", columns, tuple(found.most_common()), note) if found else None


def common_table(study: Configurations) -> Table | None:
    """The settings that all cells share; None if there are none."""
    return _pairs("common", "Settings of all cells", study.results.common)


def conditions_table(study: Configurations) -> Table | None:
    """Versions, processors, commit and date; None if nothing was recorded."""
    return _pairs("conditions", "Conditions", study.results.conditions)


def machine_text(machine: Machine) -> str:
    """Such as "a processor, 2 threads"."""
    name, threads = machine
    return ", ".join(part for part in (name or "an unknown processor", f"{threads} threads" if threads else "") if part)


def _pairs(name: str, title: str, values: Mapping[str, Any]) -> Table | None:
    rows = tuple((key.replace("_", " "), _text(value)) for key, value in values.items())
    return Table(name, title, (Column("name"), Column("value")), rows) if rows else None


def _text(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, dict):
        return setting_text(value) or "none"
    if value is None:
        return "not set"
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)
