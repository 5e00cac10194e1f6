"""The part of the report about the recommended recipe: sentences, tables, and the command that trains it."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sparseq.drop import POINTS
from sparseq.train.recipe import Recipe
from sparseq.train.settings import flag

from .by_task import error_cell, latency_cells
from .configurations import MB, Configuration, Configurations
from .recommend import Limits, Recommendation, recommend
from .table import Cell, Column, Table

TEACHER = "TEACHER"
"""Stands in a command for the folder of a teacher's run."""

OUT = "OUT"


@dataclass(frozen=True)
class Advice:
    """sentences: for each task without a recipe, why; and what else is to be known. commands: of the chosen recipes."""

    sentences: tuple[str, ...]
    commands: tuple[str, ...]
    tables: tuple[Table, ...]


def advice(study: Configurations, limits: Limits) -> Advice:
    """What is recommended for each task; and where nothing meets the limits, what is nearest."""
    found = [recommend(study, task, limits) for task in study.tasks]
    chosen = [(one, one.chosen) for one in found if one.chosen]
    sentences = [f"{one.task}: no recipe is recommended: {one.reason}." for one in found if one.chosen is None]
    sentences += [
        f"{one.task}: {one.without} of {one.without + one.candidates} configurations have no held-out score and took "
        "no part."
        for one in found
        if one.candidates and one.without
    ]
    if any(one.by_validation for one in found):
        sentences.append("Chosen by validation scores, as was asked: a score that was chosen by is too good.")
    if any("kd" in item.methods and not any(record.recipe for record in item.done) for _, item in chosen):
        sentences.append(f"In a command, {TEACHER} stands for the folder of the teacher's run.")
    tables = [recipe_table(study, chosen, limits)] if chosen else []
    if nearest := [one for one in found if one.nearest]:
        tables.append(nearest_table(nearest))
    return Advice(tuple(sentences), tuple(command(study, item) for _, item in chosen), tuple(tables))


def recipe_table(
    study: Configurations, chosen: Sequence[tuple[Recommendation, Configuration]], limits: Limits
) -> Table:
    """The recipe of each task beside its teacher: chosen by the held-out score, reported with the validation score."""
    rows: list[tuple[Cell, ...]] = []
    for one, item in chosen:
        rows.append((one.task, item.label, *_numbers(item, limits)))
        if one.teacher is not None:
            rows.append((one.task, f"teacher: {one.teacher.label}", *_numbers(one.teacher, limits)))
    return Table(
        "recipe",
        "Recommended recipes",
        (
            Column("task"),
            Column("recipe"),
            Column("held out", "points", 2),
            Column("score", "points", 2),
            Column("standard error", "points", 2, noted=True),
            Column("stored", "MB", 1),
            Column(f"time, batch {limits.batch}", "ms", 3),
            Column("speed-up", "times", 2),
            Column("speed-up low", "times", 2, on_page=False),
            Column("speed-up high", "times", 2, on_page=False),
        ),
        tuple(rows),
        "Of the configurations within the limits, the one with the best held-out score; of equal ones, that with the "
        "fewest bytes. The score is on the validation rows.",
    )


def limits_text(limits: Limits) -> str:
    """The limits in words."""
    parts = []
    if limits.max_drop is not None:
        points = "point" if limits.max_drop == 1 else "points"
        parts.append(f"at most {limits.max_drop:g} {points} below the teacher")
    if limits.max_ms is not None:
        parts.append(f"at most {limits.max_ms:g} ms per sentence in batches of {limits.batch}")
    if limits.max_mb is not None:
        parts.append(f"at most {limits.max_mb:g} MB stored")
    return ", ".join(parts)


def nearest_table(found: Sequence[Recommendation]) -> Table:
    """Per limit that was asked for: what comes nearest."""
    rows = tuple(
        (
            one.task,
            f"{near.limit.name} ({near.limit.unit})",
            near.limit.most,
            near.met,
            near.value,
            near.item.label if near.item else "nothing is measured",
            near.others,
        )
        for one in found
        for near in one.nearest
    )
    return Table(
        "nearest",
        "What comes nearest to the limits",
        (
            Column("task"),
            Column("limit"),
            Column("asked for", digits=2),
            Column("met by", "configurations", 0),
            Column("nearest", digits=2),
            Column("configuration"),
            Column("meets the other limits"),
        ),
        rows,
        "The least value among the configurations that meet all other limits; among all, if none meets those.",
    )


def command(study: Configurations, item: Configuration) -> str:
    """`sparseq compress` with the settings of the configuration's first finished cell.

    Where the cell's recipe is not known, the size stands for the model, and `TEACHER` for the teacher.
    """
    values = dict(next((record.recipe for record in item.done if record.recipe), {}))
    if not values:
        values = {"model": item.size, "task": item.task, **study.results.common, **item.settings}
        if "kd" in item.methods:
            values.setdefault("teacher", TEACHER)
    values |= {"methods": item.methods or ("none",), "out": OUT}
    return "sparseq compress " + " ".join(_flags(values))


def _flags(values: Mapping[str, Any]) -> list[str]:
    """Settings that `sparseq compress` has, in the order of its help; a study may have others, such as its own."""
    found = []
    for name in Recipe.settings():
        value = values.get(name)
        if value is None or (isinstance(value, (list, tuple)) and not value):
            continue
        if isinstance(value, bool):
            found.append(flag(name) if value else flag(name).replace("--", "--no-", 1))
        else:
            text = ",".join(map(str, value)) if isinstance(value, (list, tuple)) else _shown(value)
            # Joined, so that a value that begins with a dash is no option.
            found.append(
                f"{flag(name)}={shlex.quote(text)}" if text.startswith("-") else f"{flag(name)} {shlex.quote(text)}"
            )
    return found


def _shown(value: Any) -> str:
    """4.0 as 4."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _numbers(item: Configuration, limits: Limits) -> list[Cell]:
    score, held_out = item.score, item.held_out
    return [
        POINTS * held_out.mean if held_out else None,
        POINTS * score.mean if score else None,
        error_cell(score),
        None if item.stored_bytes is None else item.stored_bytes / MB,
        *latency_cells(item.latency(str(limits.batch))),
    ]
