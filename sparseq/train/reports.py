"""What the trackers of `--report-to` are told: the settings, the course of the training, and the result."""

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, redirect_stdout
from pathlib import Path
from types import TracebackType
from typing import Any

from sparseq.errors import InputError
from sparseq.reading import brief

from .curve import Step
from .durable import read_sealed, write_sealed
from .folder import RunFolder
from .progress import Reporter
from .recipe import PATH_SETTINGS, Recipe
from .result import RunResult
from .trackers import FAILED, FINISHED, INTERRUPTED, TRACKERS, Start, Tracker

BETWEEN_REPORTS = 10
"""Steps between two reports to a tracker; evaluations and the last step are always reported."""

STATE = "trackers.json"
"""Among the checkpoints: each tracker's run, and the last step that it was told."""

_NOT_TOLD = ("out", "report_to", "data_dir", "wordnet")


class Reports:
    """The trackers of a run, as a context: they are closed at its end, whatever ended it.

    A run that continues continues in the same run of the tracker. A step is told once: the steps between the last
    checkpoint and an interruption are taken again, with the same numbers, and not told again. A tracker that fails on
    the way is left out from then on, since a training is worth more than its report.

    evaluated_on: the split that scores are on.
    """

    def __init__(self, recipe: Recipe, folder: RunFolder, evaluated_on: str, reporter: Reporter) -> None:
        self.recipe, self.folder, self.evaluated_on, self.reporter = recipe, folder, evaluated_on, reporter
        self.open: dict[str, Tracker] = {}
        self.told: dict[str, int] = {}

    @property
    def _path(self) -> Path:
        return self.folder.checkpoints / STATE

    def begin(self, steps: Sequence[Step] = (), last: int = 0) -> None:
        """Begins or continues the trackers' runs, and tells them what they have not been told of these steps.

        last: the training's last step. Raises InputError if a tracker cannot begin.
        """
        if not self.recipe.report_to:
            return
        state = self._state()
        for name in dict.fromkeys(self.recipe.report_to):
            known, told = state.get(name, (None, 0))
            start = Start(self.folder.path.name, told_settings(self.recipe), self.folder.path, known, told)
            try:
                with _silent():
                    tracker = TRACKERS[name][0](start)  # type: ignore[call-arg]
            except Exception as error:  # of any kind: the libraries have no common base class
                raise InputError(
                    f"--report-to {name}: {name} cannot begin a run ({brief(error)}); leave it out, or see its manual"
                ) from error
            self.open[name], self.told[name] = tracker, told
            self.reporter.say(f"{'reporting on' if known else 'reporting'} to {name}: {tracker.place}")
        self._save()
        for step in steps:
            self.tell(step, last)

    def tell(self, step: Step, last: int) -> None:
        """Reports a step if it is its turn. last: the training's last step."""
        if not self.open or not (step.score is not None or step.step % BETWEEN_REPORTS == 0 or step.step == last):
            return
        values = {
            "train/loss": step.loss,
            "train/learning_rate": step.learning_rate,
            "train/sparsity": step.sparsity,
            f"{self.evaluated_on}/score": step.score,
        }
        given = {name: value for name, value in values.items() if value is not None}
        for name in [name for name in self.open if self.told[name] < step.step]:
            self._try(name, lambda tracker: tracker.log(given, step.step))
            self.told[name] = step.step
        self._save()

    def finish(self, result: RunResult) -> None:
        """Reports the result, and ends the trackers' runs."""
        values = final_values(result)
        for name in list(self.open):
            self._try(name, lambda tracker: tracker.result(values, result.steps))
        self._close(FINISHED)

    def __enter__(self) -> "Reports":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close(INTERRUPTED if isinstance(error, KeyboardInterrupt) else FAILED)

    def _close(self, status: str) -> None:
        for name in list(self.open):
            self._try(name, lambda tracker: tracker.close(status))
            self.open.pop(name, None)

    def _try(self, name: str, action: Callable[[Tracker], None]) -> None:
        try:
            with _silent():
                action(self.open[name])
        except Exception as error:  # of any kind, as above
            del self.open[name]
            self.reporter.say(f"reporting to {name} failed ({brief(error)}): the run goes on without it")

    def _state(self) -> dict[str, tuple[str, int]]:
        try:
            return {name: (str(run), int(step)) for name, (run, step) in read_sealed(self._path).items()}
        except ValueError:  # There is none, or it was changed.
            return {}

    def _save(self) -> None:
        write_sealed(self._path, {name: [tracker.run, self.told[name]] for name, tracker in self.open.items()})


def _silent() -> AbstractContextManager[Any]:
    """Drops what a library prints: stdout is for results, and the run says itself where they are."""
    return redirect_stdout(io.StringIO())


def told_settings(recipe: Recipe) -> dict[str, Any]:
    """The settings that a run has, for a tracker: lists as text, and of an absolute path only its last part."""
    found: dict[str, Any] = {}
    for name in recipe.settings():
        value = getattr(recipe, name)
        if name in _NOT_TOLD or value is None or (value == () and name != "methods"):
            continue
        if name in PATH_SETTINGS and Path(value).is_absolute():
            value = Path(value).name
        found[name] = (",".join(map(str, value)) or "none") if isinstance(value, tuple) else value
    return found


def final_values(result: RunResult) -> dict[str, float]:
    """The numbers of a result, by the names that trackers are told."""
    values: dict[str, float | None] = {
        name: getattr(result, name)
        for name in (
            "score", "score_before_packing", "teacher_score", "held_out_score", "sparsity_reached", "parameters",
            "nonzero", "paper_bytes", "stored_bytes", "seconds", "kept_step", "lr",
        )
    }  # fmt: skip
    values |= result.metrics | {f"held_out_{name}": value for name, value in result.held_out_metrics.items()}
    values["drop_points"] = None if result.drop is None else result.drop.points
    return _numbers(values)


def _numbers(values: Mapping[str, float | None]) -> dict[str, float]:
    """The finite ones, below `final/`; a metric may have any name, and MLflow does not take every one."""
    return {
        f"final/{re.sub(r'[^0-9A-Za-z_. -]', '_', name)}": value
        for name, value in values.items()
        if value is not None and math.isfinite(value)
    }
