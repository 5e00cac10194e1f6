"""Study files: the sizes, tasks and grids of settings of a study, read from TOML.

    name = "ladder"

    [common]                            # settings of every run, as in a recipe
    max_length = 64
    epochs = 3

    [teacher]                           # what the teachers' runs have besides
    epochs = 4

    [with.kd]                           # what a method brings along wherever it is used
    augment_copies = 1

    [[sizes]]                           # from the largest to the smallest; the first is the teacher's
    name = "6 layers"
    model = "sentence-transformers/all-MiniLM-L6-v2"
    [[sizes]]
    name = "3 layers"
    model = "@teacher"                  # that of the same task and seed
    layers = 3

    [[tasks]]
    name = "sst2"
    task = "sst2"

    [[grids]]                           # every list of values is an axis, and a grid has all their combinations
    name = "subsets"
    methods = ["none", "qat", "kd", "mp", "qat,kd", "qat,mp", "kd,mp", "qat,kd,mp"]
    sparsity = [0.4, 0.6]
    seed = [0, 1, 2]

In a grid, `model = "@baseline"` starts from the run of the same size, task and seed without methods, which has the
common settings. A grid takes all sizes and tasks, or those that its lists `sizes` and `tasks` name. A setting of a grid
goes before one that comes with a method, that before the task's and the size's, and those before the common ones.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import prod
from pathlib import Path
from typing import Any, TypeGuard

from sparseq.errors import InputError
from sparseq.terminal import shown
from sparseq.train.recipe import ALL_METHODS, Recipe
from sparseq.train.recipe_file import read_settings
from sparseq.train.unknown import meant
from sparseq_kernels.untrusted import quoted

TEACHER, BASELINE = "@teacher", "@baseline"
"""Models that the study itself trains, where a setting names a model."""

LONGEST_NAME = 60
"""Bytes: names of a size and a task together are part of a folder's name, which has 255 at most."""

MOST_CELLS = 100_000
"""Of a grid."""

_TABLES = {"name", "common", "teacher", "with", "sizes", "tasks", "grids"}
# What every cell gets from the study.
_SET_BY_STUDY = ("out",)
_AXES_OF_NAMES = ("sizes", "tasks")


@dataclass(frozen=True)
class Part:
    """A size or task: its name, and its settings."""

    name: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Grid:
    """A grid: its axes (settings with several values, in order), its fixed settings, and its sizes and tasks."""

    name: str
    axes: Mapping[str, tuple[Any, ...]]
    settings: Mapping[str, Any]
    sizes: tuple[str, ...]
    tasks: tuple[str, ...]

    def points(self) -> list[dict[str, Any]]:
        """Every combination of the axes' values, with the fixed settings."""
        return [
            {**self.settings, **dict(zip(self.axes, values, strict=True))} for values in product(*self.axes.values())
        ]


@dataclass(frozen=True)
class Study:
    """A study as its file describes it.

    common: settings of all runs. teacher: further ones of the teachers' runs. brought: those that come with a method.
    """

    name: str
    common: Mapping[str, Any]
    sizes: tuple[Part, ...]
    tasks: tuple[Part, ...]
    grids: tuple[Grid, ...]
    teacher: Mapping[str, Any] = field(default_factory=dict)
    brought: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def from_file(cls, path: str | Path, changes: Mapping[str, Any] | None = None) -> "Study":
        """Reads a study file. changes: common settings that go before those of the file.

        Raises InputError, naming the file and the place in it, for unknown names, for values that a setting does not
        take, for a grid without a cell, and for names that are given twice.
        """
        where = str(path)
        found = read_settings(path, "study", (".toml",))
        _known(found, _TABLES, where)
        name = found.get("name")
        if not _is_name(name):
            raise InputError(
                f'{where} has no name of at most {LONGEST_NAME} letters: begin it with a line such as name = "ladder"'
            )
        common = {**_settings(found, "common", where), **(changes or {})}
        sizes, tasks = _parts(found, "sizes", where), _parts(found, "tasks", where)
        names = {"sizes": [part.name for part in sizes], "tasks": [part.name for part in tasks]}
        grids = tuple(_grid(one, i, names, where) for i, one in enumerate(_list(found, "grids", where), start=1))
        _unique([grid.name for grid in grids], "grid", where)
        return cls(name, common, sizes, tasks, grids, _settings(found, "teacher", where), _brought(found, where))


def _brought(found: Mapping[str, Any], where: str) -> dict[str, dict[str, Any]]:
    tables = _table(found, "with", where)
    for method in tables:
        if method not in ALL_METHODS:
            raise InputError(
                f"{where} has a table [with.{shown(method)}]: a table for a method is one of "
                f"{', '.join(f'[with.{known}]' for known in ALL_METHODS)}"
            )
    return {method: _checked(_table(tables, method, where), f"{where}, [with.{method}]") for method in tables}


def _parts(found: Mapping[str, Any], kind: str, where: str) -> tuple[Part, ...]:
    parts = []
    for number, values in enumerate(_list(found, kind, where), start=1):
        place = f"{where}, [[{kind}]] {number}"
        name = _name(values, place)
        parts.append(Part(name, _checked({k: v for k, v in values.items() if k != "name"}, place)))
    _unique([part.name for part in parts], kind[:-1], where)
    return tuple(parts)


def _grid(values: Mapping[str, Any], number: int, names: Mapping[str, Sequence[str]], where: str) -> Grid:
    place = f"{where}, [[grids]] {number}"
    name = _name(values, place)
    chosen = {}
    for kind, there in names.items():
        wanted = values.get(kind, list(there))
        if not isinstance(wanted, list) or not wanted:
            raise InputError(f"{place}: {kind} is a list of their names, such as {kind} = [{quoted(there[0])}]")
        for one in wanted:
            if one not in there:
                raise InputError(f"{place}: there is no {kind[:-1]} {quoted(one)}: the {kind} are {', '.join(there)}")
        chosen[kind] = tuple(wanted)
    axes: dict[str, tuple[Any, ...]] = {}
    fixed: dict[str, Any] = {}
    for setting, value in values.items():
        if setting in ("name", *_AXES_OF_NAMES):
            continue
        several = value if isinstance(value, list) else [value]
        if not several:
            raise InputError(
                f"{place}: {setting} is an empty list, so the grid has no cell: give values, or leave it out"
            )
        parsed = [_checked({setting: one}, place)[setting] for one in several]
        if len(set(map(repr, parsed))) < len(parsed):
            raise InputError(f"{place}: {setting} has a value twice: give each once")
        if isinstance(value, list):
            axes[setting] = tuple(parsed)
        else:
            fixed[setting] = parsed[0]
    count = prod(map(len, [*axes.values(), *chosen.values()]))
    if count > MOST_CELLS:
        raise InputError(f"{place} has {count:,} cells, and at most {MOST_CELLS:,} are possible: give fewer values")
    return Grid(name, axes, fixed, **chosen)


def _checked(values: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Settings of a recipe, each parsed. Raises InputError, naming the place, for others and for wrong values."""
    _known(values, {name for name in Recipe.settings() if name not in _SET_BY_STUDY}, place)
    described = Recipe.settings()
    return {name: described[name].value(name, value, place) for name, value in values.items()}


def _known(values: Mapping[str, Any], known: set[str], place: str) -> None:
    for name in values:
        if name in known:
            continue
        if name in _SET_BY_STUDY:
            raise InputError(f"{place} sets {name}, which a study gives each run itself: leave it out")
        close = meant(name, sorted(known))
        hint = f"did you mean {close!r}?" if close else f"known there are {', '.join(sorted(known))}"
        raise InputError(f"{place} has an unknown name {quoted(name)}: {hint}")


def _settings(found: Mapping[str, Any], name: str, where: str) -> dict[str, Any]:
    return _checked(_table(found, name, where), f"{where}, [{name}]")


def _table(found: Mapping[str, Any], name: str, where: str) -> dict[str, Any]:
    values = found.get(name, {})
    if not isinstance(values, dict):
        raise InputError(f"{where}: {name} is a table of settings, [{name}], not {quoted(values)}")
    return values


def _list(found: Mapping[str, Any], name: str, where: str) -> list[dict[str, Any]]:
    values = found.get(name, [])
    if not isinstance(values, list) or not values or not all(isinstance(one, dict) for one in values):
        raise InputError(f"{where} has no {name}: give one at least, as a table [[{name}]] with a name and settings")
    return values


def _name(values: Mapping[str, Any], place: str) -> str:
    name = values.get("name")
    if not _is_name(name):
        raise InputError(
            f"{place} has no name of at most {LONGEST_NAME} letters (fewer outside ASCII): give it one, such as "
            'name = "small"'
        )
    return name


def _is_name(name: Any) -> TypeGuard[str]:
    fits = isinstance(name, str) and name.isprintable() and len(name.encode()) <= LONGEST_NAME
    return fits and bool(name.strip())


def _unique(names: Sequence[str], kind: str, where: str) -> None:
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{where} has two {kind}s named {quoted(name)}: name each differently")
