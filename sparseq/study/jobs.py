"""What a process of a study is asked to do, and what it answers: one JSON object each."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from sparseq.errors import InputError, MachineError
from sparseq.reading import brief, build
from sparseq.terminal import shown
from sparseq.train.progress import Phase, Reporter

BETWEEN_REPORTS = 1.0
"""Seconds."""

PATIENCE = 30.0
"""Seconds that a run waits for a folder that another process has."""


@dataclass(frozen=True)
class Job:
    """A run to do, or finished runs to time.

    name: of the cell, or of the group that is timed. recipe: the run's settings; None for a timing. timing: the
    arguments of `latency.measure`. progress: the file that the state of the run is written to.
    """

    name: str
    progress: str
    recipe: dict[str, Any] | None = None
    timing: dict[str, Any] | None = None


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    reason: one sentence if it failed, else None. lost: its process or node died.
    """

    name: str
    reason: str | None = None
    lost: bool = False


@dataclass(frozen=True)
class Progress:
    """The state of a running job: its phase, and how much of the phase is done."""

    phase: str
    done: int
    total: int
    note: str = ""


class FileReporter(Reporter):
    """A reporter that writes the current phase to a file, for the process that shows all runs."""

    def __init__(self, path: Path) -> None:
        super().__init__(silent=True)
        self._path = path
        self._told = 0.0

    @contextmanager
    def phase(self, name: str, total: int = 0, done: int = 0) -> Iterator[Phase]:
        phase = _ReportedPhase(self, name, total, done)
        self.tell(phase, at_once=True)
        yield phase

    def tell(self, phase: Phase, *, at_once: bool = False) -> None:
        """Writes the phase, unless it was written less than `BETWEEN_REPORTS` ago. A full disk does not end the run."""
        if not at_once and monotonic() - self._told < BETWEEN_REPORTS:
            return
        self._told = monotonic()
        partial = self._path.with_suffix(".partial")
        with suppress(OSError):
            partial.write_text(json.dumps(asdict(Progress(phase.name, phase.done, phase.total, phase.note))), "utf-8")
            os.replace(partial, self._path)


class _ReportedPhase(Phase):
    reporter: FileReporter

    def update(self, done: int | None = None, note: str | None = None) -> None:
        super().update(done, note)
        self.reporter.tell(self)


def progress_of(path: Path) -> Progress | None:
    """The state that a running job has written; None if there is none."""
    try:
        return build(Progress, json.loads(path.read_text("utf-8")))
    except (OSError, ValueError):
        return None


def _compress(recipe: dict[str, Any], reporter: Reporter) -> None:
    """Runs the recipe. Waits a little for a process that had the folder before and is dying."""
    from sparseq.train import Recipe, compress
    from sparseq.train.lock import InUseError

    end = monotonic() + PATIENCE
    while True:
        try:
            compress(Recipe.from_dict(recipe), reporter=reporter)
            return
        except InUseError:
            if monotonic() > end:
                raise
            sleep(1.0)


def carry_out(job: Job) -> Outcome:
    """Does a job in this process. Every failure but an interruption becomes the outcome's reason."""
    reporter = FileReporter(Path(job.progress))
    try:
        if job.recipe is not None:
            _compress(job.recipe, reporter)
        if job.timing is not None:
            from .latency import measure

            measure(**job.timing, reporter=reporter)
    except (InputError, MachineError) as error:
        return Outcome(job.name, shown(brief(error) if len(str(error)) > 600 else str(error)))
    except Exception as error:  # the study goes on; the log has the traceback
        import traceback

        traceback.print_exc()
        return Outcome(job.name, f"{type(error).__name__}: {brief(error)} (the traceback is in the study's logs)")
    finally:
        Path(job.progress).unlink(missing_ok=True)
    return Outcome(job.name)
