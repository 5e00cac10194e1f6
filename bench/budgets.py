"""Which combination for which budget: tables of the published studies, by the rule that their reports recommend by.

A budget is how many points of score may be lost, how many MB a model may take as it is stored, and how many
milliseconds a sentence may take. Each entry of `TABLES` is for one task of one study: the recipe for every pair of
limits on size and time, the numbers of these recipes, and the command of each.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from bench.best_models import recipe_text, score_cells, where
from bench.common import ROOT
from bench.render import NO_RESULTS, table
from bench.studies.comparisons import between
from bench.studies.findings import outcome
from bench.studies.published import STUDIES
from sparseq.drop import POINTS
from sparseq.study.records import Record, StudyResults
from sparseq.study.report.configurations import Configuration, Configurations
from sparseq.study.report.recipe import TEACHER, command, limits_text
from sparseq.study.report.recommend import Limits, recommend
from sparseq.study.study_file import BASELINE
from sparseq.study.study_file import TEACHER as STARTS_FROM_TEACHER
from sparseq.train.recipe_file import read_settings

STARTS = {STARTS_FROM_TEACHER: TEACHER, BASELINE: "BASELINE"}
"""What stands in a command for a model that the study trained."""

MEGABYTES = (None, 25.0, 17.5, 10.0, 6.0, 5.0)
MILLISECONDS = (None, 3.0, 2.0, 1.5, 1.2)
"""Of one sentence, in batches of 1."""

TYPICAL = (
    Limits(max_drop=0.5, max_mb=25, max_ms=3),
    Limits(max_drop=0.5, max_mb=10),
    Limits(max_drop=1, max_mb=6, max_ms=2),
    Limits(max_drop=2, max_mb=6, max_ms=1.5),
    Limits(max_drop=3, max_mb=5, max_ms=1.2),
    Limits(max_drop=0.5, max_mb=5),
)


@dataclass(frozen=True)
class Source:
    """A task of a study. typical: whether its table begins with the budgets of `TYPICAL`."""

    study: str
    task: str
    typical: bool = False

    @property
    def file(self) -> str:
        """The study's, in bench/studies."""
        return f"{self.study.replace('-', '_')}.toml"


TABLES = {
    "budgets-sst2": Source("minilm-best", "sst2", typical=True),
    "budgets-sst2-untimed": Source("minilm-full", "sst2"),
    "budgets-stsb-untimed": Source("minilm-full", "stsb"),
    "budgets-sst2-few-rows": Source("minilm", "sst2"),
    "budgets-stsb-few-rows": Source("minilm", "stsb"),
}


class _Recipes:
    """The recipes that a table names, numbered as they come."""

    def __init__(self, study: Configurations, source: Source) -> None:
        self.study, self.source = study, source
        self.items: list[Configuration] = []

    def number(self, item: Configuration) -> int:
        if item not in self.items:
            self.items.append(item)
        return self.items.index(item) + 1

    def cell(self, limits: Limits) -> str:
        """The recipe's number, with its held-out score beside the teacher's."""
        found = recommend(self.study, self.source.task, limits)
        if found.chosen is None:
            return "-"
        if found.chosen is found.teacher:
            return "the teacher"
        return f"{self.number(found.chosen)} ({_held_out_difference(found.chosen, found.teacher)})"


def _held_out_difference(item: Configuration, teacher: Configuration | None) -> str:
    if item.held_out is None or teacher is None or teacher.held_out is None:
        return "-"
    return f"{POINTS * (item.held_out.mean - teacher.held_out.mean):+.2f}"


def budgets(name: str, results: StudyResults | None = None) -> str:
    """The tables of a name in `TABLES`."""
    source = TABLES[name]
    if results is None:
        file = STUDIES / f"{source.study}.json"
        if not file.exists():
            return NO_RESULTS
        results = StudyResults.from_file(file)
    study = Configurations(started(results, source.file))
    teacher = study.teacher(source.task)
    if teacher is None:
        return NO_RESULTS
    recipes = _Recipes(study, source)
    parts = [where(study)]
    if source.typical:
        parts.append(_typical(recipes))
    parts += [_by_limits(recipes), _numbers(recipes, results, teacher), *_commands(recipes, teacher)]
    return "\n".join(parts)


def started(results: StudyResults, file: str) -> StudyResults:
    """The results with `TEACHER` or "BASELINE" for the model, in recipes of grids that start from such a run."""
    grids = {grid["name"]: grid.get("model") for grid in read_settings(ROOT / "bench" / "studies" / file)["grids"]}

    def changed(record: Record) -> Record:
        start = STARTS.get(grids.get(record.grids[0]) or "")
        if start is None or not record.recipe:
            return record
        return dataclasses.replace(record, recipe={**record.recipe, "model": start})

    return dataclasses.replace(results, records=tuple(changed(one) for one in results.records))


def _typical(recipes: _Recipes) -> str:
    rows = []
    for limits in TYPICAL:
        found = recommend(recipes.study, recipes.source.task, limits)
        if found.chosen is not None and found.chosen is found.teacher:
            rows.append((limits_text(limits), "the teacher"))
        elif found.chosen:
            rows.append((limits_text(limits), f"{recipes.number(found.chosen)}: {recipe_text(found.chosen)}"))
        else:
            rows.append((limits_text(limits), f"none: {found.reason}"))
    return table(("budget", "recipe"), rows, text=2)


def _by_limits(recipes: _Recipes) -> str:
    """The recipe for each pair of limits, without the limits that nothing meets."""
    times = MILLISECONDS if recipes.study.batches else MILLISECONDS[:1]
    rows = []
    for most in MEGABYTES:
        cells = [recipes.cell(Limits(max_mb=most, max_ms=time)) for time in times]
        if any(cell != "-" for cell in cells):
            rows.append(["any size" if most is None else f"{most:g} MB", *cells])
    head = ["stored, at most", *("any time" if time is None else f"{time:g} ms" for time in times)]
    return table(head, rows)


def _numbers(recipes: _Recipes, results: StudyResults, teacher: Configuration) -> str:
    head = ("recipe", "model", "score", "beside the teacher", "held-out rows", "stored MB")
    timed = [f"ms a sentence, batch {batch}" for batch in recipes.study.batches]
    rows = [("", f"the teacher: {recipe_text(teacher)}", *score_cells(teacher, teacher, "", recipes.study.batches))]
    for number, item in enumerate(recipes.items, 1):
        found = outcome(between(recipes.source.study, item, teacher), results)
        difference = f"{found.points:+.2f} ± {found.error:.2f}"
        cells = score_cells(item, teacher, difference, recipes.study.batches)
        rows.append((str(number), recipe_text(item), *cells))
    return table((*head, *timed), rows, text=2)


def _commands(recipes: _Recipes, teacher: Configuration) -> Sequence[str]:
    shown = [("The teacher", teacher), *((f"Recipe {number}", item) for number, item in enumerate(recipes.items, 1))]
    return [f"{name}:\n\n```text\n{_wrapped(command(recipes.study, item))}\n```\n" for name, item in shown]


def _wrapped(text: str, width: int = 76) -> str:
    """A command over several lines, none of which ends within an option and its value."""
    lines, line = [], ""
    for word in text.replace(" --", "\n--").split("\n"):
        if line and len(line) + len(word) > width:
            lines.append(f"{line} \\")
            line = "   "
        line = f"{line} {word}" if line else word
    return "\n".join([*lines, line])
