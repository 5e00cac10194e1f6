"""The cells of a study: one compression run each, with what it depends on and a key of its settings and data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sparseq.errors import InputError
from sparseq.train.recipe import PATH_SETTINGS, Recipe
from sparseq_kernels.untrusted import quoted

from .keys import key_of
from .study_file import BASELINE, TEACHER, Grid, Part, Study

TEACHERS = "teachers"
"""The name of the grid that teachers belong to which are in none of the study file."""

DIGITS = 6
"""Of a cell's key in its name."""

_ALWAYS_TOLD = ("sparsity", "pattern", "criterion")
# What the cell's own attributes say, and where its data are.
_NOT_VARIED = {*PATH_SETTINGS, "task", "methods", "seed", "layers"}


@dataclass(frozen=True)
class Cell:
    """One run of a study.

    Attributes:
        name: unique in the study, and the name of its folder.
        grids: of the study file, in its order; TEACHERS if it is in none.
        key: hexadecimal digest of its settings, of its data files and local models, and of the cells it depends on.
        recipe: its settings. `model` and `teacher` are paths or ids, or None where the cell of `starts_from` or
            `taught_by` takes that place; `out` is None.
        starts_from, taught_by: names of the cells whose models it starts from and learns from.
        compared_with: the name of the teacher that it is timed beside; its own name for a teacher.
        varied: the settings that vary in the study and that differ here from those of the size and task; the sparsity
            and the pattern in any case.
    """

    name: str
    key: str
    grids: tuple[str, ...]
    size: str
    task: str
    recipe: Recipe
    starts_from: str | None = None
    taught_by: str | None = None
    compared_with: str | None = None
    is_teacher: bool = False
    varied: Mapping[str, Any] = field(default_factory=dict)

    @property
    def needs(self) -> tuple[str, ...]:
        """The names of the cells that must be done before."""
        return tuple(dict.fromkeys(name for name in (self.starts_from, self.taught_by) if name is not None))


@dataclass
class _Draft:
    grids: list[str]
    size: str
    task: str
    recipe: Recipe
    key: str = ""
    starts_from: "_Draft | None" = None
    taught_by: "_Draft | None" = None
    teacher: "_Draft | None" = None
    is_teacher: bool = False


def cells_of(study: Study) -> list[Cell]:
    """All cells of a study, each after those it depends on. A run that several grids have is one cell of the first.

    Raises InputError, naming the grid, for settings that cannot run, for a setting that is given twice with equal
    right (by a size and a grid, or by two methods), and for two sizes or tasks that are the same.
    """
    drafts = _Drafts(study)
    for grid in study.grids:
        for task in (part for part in study.tasks if part.name in grid.tasks):
            for size in (part for part in study.sizes if part.name in grid.sizes):
                for point in grid.points():
                    drafts.add(grid, task, size, point)
    found = list(drafts.found.values())
    varying = _varying([draft.recipe for draft in found])
    names = _names(found)

    def named(draft: _Draft | None) -> str | None:
        return None if draft is None else names[draft.key]

    return [
        Cell(
            names[draft.key], draft.key, tuple(draft.grids), draft.size, draft.task, draft.recipe,
            named(draft.starts_from), named(draft.taught_by), named(draft.teacher), draft.is_teacher,
            _varied(draft.recipe, varying, drafts.base(draft)),
        )
        for draft in found
    ]  # fmt: skip


class _Drafts:
    """The cells so far, by key, each after those it depends on."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.found: dict[str, _Draft] = {}
        self._teachers: dict[tuple[str, int], _Draft] = {}

    def base(self, draft: _Draft) -> Recipe:
        """The settings of the draft's size and task, without those of a grid, of a method, or of teachers."""
        own = [part.settings for part in self.study.tasks if part.name == draft.task]
        own += [part.settings for part in self.study.sizes if part.name == draft.size]
        values = {name: value for part in (self.study.common, *own) for name, value in part.items()}
        # The scope by itself depends on them, and is not told.
        decisive = {name: getattr(draft.recipe, name) for name in ("methods", "pattern", "criterion")}
        return Recipe.from_dict({**values, **decisive}).resolved()

    def add(self, grid: Grid, task: Part, size: Part, point: Mapping[str, Any]) -> _Draft:
        return self._add(grid.name, task, size, point, f"grid {grid.name!r}, size {size.name!r}, task {task.name!r}")

    def _add(self, grid: str, task: Part, size: Part, point: Mapping[str, Any], place: str) -> _Draft:
        values = self._settings(task, size, point, place)
        _check_models(values, place)
        recipe = Recipe.from_dict(values, place)
        seed, methods = recipe.seed, recipe.methods
        draft = _Draft([grid], size.name, task.name, recipe)
        own_teacher = "teacher" in values
        if not own_teacher:
            if (task.name, seed) not in self._teachers:
                self._teachers[task.name, seed] = self.teacher(task, seed)
            draft.teacher = self._teachers[task.name, seed]
        if values.get("model") == TEACHER:
            if own_teacher:
                raise InputError(
                    f"{place}: model = {TEACHER!r} is the study's own teacher, but the settings name another"
                )
            draft.starts_from = draft.teacher
        elif values.get("model") == BASELINE:
            if not methods:
                raise InputError(f"{place}: a run without methods is the baseline, and cannot start from it")
            plain = {"methods": (), **{name: point[name] for name in ("seed",) if name in point}}
            draft.starts_from = self._add(grid, task, size, plain, place)
        if recipe.uses("kd"):
            draft.taught_by = draft.teacher
        return self._kept(draft, place)

    def teacher(self, task: Part, seed: int) -> _Draft:
        """The teacher of a task and seed; the settings of [teacher] may fix the seed."""
        size = self.study.sizes[0]
        place = f"[teacher], task {task.name!r}"
        for name in ("methods", "layers"):
            if name in self.study.teacher:
                raise InputError(f"{place} sets {name}: a teacher is the first size, fine-tuned plainly")
        settings = {**self.study.common, **task.settings, **size.settings, "seed": seed, **self.study.teacher}
        if settings.get("model") in (TEACHER, BASELINE):
            raise InputError(f"the first size, {size.name!r}, is the teacher's: give it a model of its own")
        _check_models(settings, place)
        draft = _Draft(
            [TEACHERS], size.name, task.name, Recipe.from_dict({**settings, "methods": ()}, place), is_teacher=True
        )
        kept = self._kept(draft, place)
        kept.is_teacher, kept.teacher = True, kept
        return kept

    def _settings(self, task: Part, size: Part, point: Mapping[str, Any], place: str) -> dict[str, Any]:
        of_study = str(point.get("model", "")).startswith("@")
        for one, other, what in (
            (point, {k: v for k, v in size.settings.items() if k != "model" or not of_study},
             f"the grid and the size {size.name!r}"),
            (point, task.settings, f"the grid and the task {task.name!r}"),
            (size.settings, task.settings, f"the size {size.name!r} and the task {task.name!r}"),
        ):  # fmt: skip
            if both := [name for name in one if name in other]:
                raise InputError(f"{place}: {what} both set {both[0]}: leave it out in one of them")
        brought: dict[str, Any] = {}
        for method in point.get("methods", self.study.common.get("methods", ())):
            for name, value in self.study.brought.get(method, {}).items():
                if brought.get(name, value) != value:
                    raise InputError(f"{place}: two of its methods bring a different {name}: set it in the grid")
                brought[name] = value
        values = {**self.study.common, **task.settings, **size.settings, **brought, **point}
        if values.get("model") == BASELINE:
            values.pop("layers", None)  # the baseline has them already
        return values

    def _kept(self, draft: _Draft, place: str) -> _Draft:
        """The draft, or the one with the same key that there is already."""
        draft.recipe = _validated(draft, place)
        draft.key = key_of(
            draft.recipe,
            draft.starts_from.key if draft.starts_from else None,
            draft.taught_by.key if draft.taught_by else None,
        )
        kept = self.found.setdefault(draft.key, draft)
        kept.grids = [grid for grid in dict.fromkeys([*kept.grids, *draft.grids]) if grid != TEACHERS] or [TEACHERS]
        if (kept.size, kept.task) != (draft.size, draft.task):
            what, one, other = (
                ("sizes", kept.size, draft.size) if kept.size != draft.size else ("tasks", kept.task, draft.task)
            )
            raise InputError(f"{place}: the {what} {one!r} and {other!r} have the same settings: leave one out")
        return kept


def _check_models(values: Mapping[str, Any], place: str) -> None:
    """Raises InputError for what seems to be a model of the study, and is none."""
    model, teacher = (str(values.get(name, "")) for name in ("model", "teacher"))
    if model.startswith("@") and model not in (TEACHER, BASELINE):
        raise InputError(f"{place}: there is no model {quoted(model)}: a study has {TEACHER} and {BASELINE}")
    if teacher.startswith("@"):
        raise InputError(f"{place}: runs with kd learn from the study's own teacher: leave teacher out")


def _validated(draft: _Draft, place: str) -> Recipe:
    """The recipe, checked as if the cells that it depends on were models, and without what does not matter to it."""
    stand_in = {"out": "."}
    if draft.starts_from is not None:
        stand_in["model"] = TEACHER
    if draft.taught_by is not None:
        stand_in["teacher"] = TEACHER
    try:
        recipe = draft.recipe.replace(**stand_in).validate().resolved()
    except InputError as error:
        raise InputError(f"{place}: {error}") from error
    default = Recipe()
    used = set(recipe.in_use())
    values = {name: getattr(recipe if name in used else default, name) for name in Recipe.settings()}
    for name, cell in (("model", draft.starts_from), ("teacher", draft.taught_by)):
        if cell is not None:
            values[name] = None
    values |= {name: getattr(recipe, name) for name in ("save_steps", "eval_batch_size")} | {"out": None}
    return Recipe(**values)


def _varied(recipe: Recipe, varying: Sequence[str], base: Recipe) -> dict[str, Any]:
    """What tells the run apart: where it differs from the base; its sparsity, pattern and criterion in any case."""
    return {
        name: getattr(recipe, name)
        for name in recipe.in_use()
        if name in varying and (name in _ALWAYS_TOLD or getattr(recipe, name) != getattr(base, name))
    }


def _varying(recipes: Sequence[Recipe]) -> list[str]:
    """The settings that have several values among the runs to which they matter, in order."""
    values: dict[str, set[str]] = {name: set() for name in Recipe.settings()}
    for recipe in recipes:
        for name in recipe.in_use():
            values[name].add(repr(getattr(recipe, name)))
    return [name for name, several in values.items() if len(several) > 1 and name not in _NOT_VARIED]


def _names(drafts: Sequence[_Draft]) -> dict[str, str]:
    """Names by key. The later of two cells that would have one name gets more digits of its key."""
    found: dict[str, str] = {}
    taken = set()
    for draft in drafts:
        name = next(name for digits in range(DIGITS, len(draft.key)) if (name := _name(draft, digits)) not in taken)
        taken.add(name)
        found[draft.key] = name
    return found


def _name(draft: _Draft, digits: int) -> str:
    """A name that says what the cell is; of its own settings alone, so that other cells do not change it."""
    recipe = draft.recipe
    parts = [draft.task, draft.size, "+".join(recipe.methods) or "plain"]
    if recipe.uses("mp"):
        parts += [f"{recipe.sparsity:g}", recipe.pattern]
    if recipe.quantizes and recipe.bits != Recipe().bits:
        parts.append(f"{recipe.bits}bit")
    parts += [f"s{recipe.seed}", draft.key[:digits]]
    return "-".join("".join(c if c.isalnum() or c in "+._" else "_" for c in part) for part in parts)
