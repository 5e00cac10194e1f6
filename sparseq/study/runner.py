"""Running a study: which cell is next, what a failure stops, and when finished cells are timed."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from sparseq.train import interrupt
from sparseq.train.recipe import Recipe

from .cells import Cell
from .folder import STATE, StudyFolder
from .jobs import Job, Outcome
from .pool import Pool

TRIES = 3
"""How often a cell is begun again after its process or node was lost."""

TIMED_AT_ONCE = 8
"""Cells that are timed alternately with their teacher."""

TIMED_WHEN = 4 * TIMED_AT_ONCE
"""So many finished cells wait to be timed until training pauses for it."""

_LOOK = 0.5  # seconds


class Watcher(Protocol):
    """What wants to know how the study goes."""

    def started(self, cell: Cell, progress: Path) -> None: ...

    def ended(self, cell: Cell, reason: str | None) -> None: ...

    def lost(self, cell: Cell, reason: str, again: bool) -> None: ...

    def timing(self, cells: Sequence[str], progress: Path | None) -> None: ...

    def untimed(self, cells: Sequence[str], reason: str) -> None: ...

    def look(self) -> None: ...


@dataclass
class Summary:
    """How a study stands after running. failed: reasons by cell. untimed: cells whose latency could not be measured."""

    done: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    untimed: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    def as_dict(self, cells: int) -> dict[str, Any]:
        """As JSON. cells: of the whole study."""
        return {"cells": cells, **asdict(self)}


class Runner:
    """Runs the cells that are missing, each once all that it needs is done."""

    def __init__(
        self,
        cells: Sequence[Cell],
        folder: StudyFolder,
        pool: Pool,
        watcher: Watcher,
        *,
        keep: str = "all",
        timer: Callable[[], Pool] | None = None,
        study: Sequence[Cell] | None = None,
    ) -> None:
        """cells: in an order in which each comes after those it needs. study: all cells, if these are only some.

        timer: makes the pool of one process that times finished cells while nothing trains here; None times nothing.
        """
        self.cells = {cell.name: cell for cell in cells}
        self.needed = {name for cell in study or cells for name in (*cell.needs, cell.compared_with)}
        self.folder, self.pool, self.watcher, self.keep, self.timer = folder, pool, watcher, keep, timer
        self.running: dict[str, Cell] = {}
        self.lost: dict[str, int] = {}
        self.summary = Summary()
        # What the folder holds, so that it is not read again and again.
        self.done = {cell.name for cell in cells if folder.is_done(cell)}
        self.timed = {name for name in self.done if folder.timing(self.cells[name]) is not None}
        self._forget_dropped()
        self.waiting = [cell for cell in cells if cell.name not in self.done]

    def run(self) -> Summary:
        """Runs everything that is missing, and returns how the study stands."""
        began = time.monotonic()
        while self.waiting or self.running:
            if self._pauses():
                if not self.running:
                    self._time_finished()
                    continue
            else:
                self._start()
            for outcome in self.pool.wait(_LOOK):
                self._ended(outcome)
            self._look()
        self._time_finished()
        self.summary.done = len(self.done)
        self.summary.seconds = time.monotonic() - began
        return self.summary

    def _look(self) -> None:
        """Between two waits. Raises KeyboardInterrupt if an earlier one was dropped."""
        interrupt.check()
        self.watcher.look()

    def _start(self) -> None:
        """Begins cells as long as there is room, and gives up those that need a failed one."""
        for cell in list(self.waiting):
            failed = next((name for name in cell.needs if name in self.summary.failed), None)
            if failed is not None:
                self.waiting.remove(cell)
                self._make_room(cell)
                self._failed(cell, f"it needs {failed}, which failed")
            elif self.done.issuperset(cell.needs) and self.pool.free():
                self.waiting.remove(cell)
                self._begin(cell)

    def _begin(self, cell: Cell) -> None:
        self._make_room(cell)
        self.folder.mark(cell)
        progress = self.folder.path / STATE / f"{cell.name}.progress"
        self.running[cell.name] = cell
        self.pool.submit(Job(cell.name, str(progress), recipe=self._recipe(cell)))
        self.watcher.started(cell, progress)

    def _make_room(self, cell: Cell) -> None:
        """Removes what is in the cell's folder and is not its run: the mark of the cell would make it so."""
        if self.folder.is_other_run(cell, self._recipe(cell)):
            self.folder.forget(cell.name)

    def _recipe(self, cell: Cell) -> dict[str, Any]:
        """The cell's settings, with the folders of the cells that it needs."""
        changes: dict[str, str] = {"out": str(self.folder.cell(cell.name))}
        if cell.starts_from is not None:
            changes["model"] = str(self.folder.cell(cell.starts_from))
        if cell.taught_by is not None:
            changes["teacher"] = str(self.folder.cell(cell.taught_by))
        values = {name: getattr(cell.recipe, name) for name in Recipe.settings()} | changes
        return {name: value for name, value in values.items() if value is not None}

    def _ended(self, outcome: Outcome) -> None:
        cell = self.running.pop(outcome.name)
        if outcome.lost:
            self.lost[cell.name] = self.lost.get(cell.name, 0) + 1
            again = self.lost[cell.name] < TRIES
            self.watcher.lost(cell, outcome.reason or "", again)
            if again:
                self.waiting.insert(0, cell)
                return
        if outcome.reason is None and not self.folder.is_done(cell):
            outcome = Outcome(cell.name, "it ended without a result in the study's folder: is that on a shared disk?")
        if outcome.reason is not None:
            self._failed(cell, outcome.reason)
        else:
            self.done.add(cell.name)
            self.watcher.ended(cell, None)

    def _failed(self, cell: Cell, reason: str) -> None:
        self.summary.failed[cell.name] = reason
        self.folder.mark(cell, reason)
        self.watcher.ended(cell, reason)

    def _forget_dropped(self) -> None:
        """A finished run whose model was removed, and that a run to come needs, is run again."""
        for cell in reversed(self.cells.values()):  # so that what a forgotten run needs comes after it
            for name in () if cell.name in self.done else cell.needs:
                if name in self.done and not self.folder.has_weights(name):
                    self.folder.forget(name)
                    self.done.remove(name)
                    self.timed.discard(name)

    def _pauses(self) -> bool:
        return self.timer is not None and sum(map(len, self._untimed().values())) >= TIMED_WHEN

    def _untimed(self) -> Mapping[str, list[str]]:
        """The finished cells that have no latency, by their teacher, which is done too."""
        found: dict[str, list[str]] = {}
        for name in sorted(self.done - self.timed - self.summary.untimed.keys()):
            teacher = self.cells[name].compared_with
            if teacher in self.done and all(map(self.folder.has_weights, (name, teacher))):
                found.setdefault(teacher, []).append(name)
        return found

    def _time_finished(self) -> None:
        untimed = self._untimed() if self.timer is not None else {}
        if untimed and self.timer is not None:
            pool = self.timer()
            try:
                for teacher, names in untimed.items():
                    for start in range(0, len(names), TIMED_AT_ONCE):
                        self._time(pool, teacher, names[start : start + TIMED_AT_ONCE])
            finally:
                pool.close()
        if self.keep == "metrics":
            self._drop_weights()

    def _time(self, pool: Pool, teacher: str, names: Sequence[str]) -> None:
        progress = self.folder.path / STATE / "timing.progress"
        timing = {"folder": str(self.folder.path), "teacher": teacher, "cells": list(names)}
        pool.submit(Job("timing", str(progress), timing=timing))
        self.watcher.timing(names, progress)
        while not (outcomes := pool.wait(_LOOK)):
            self._look()
        self.watcher.timing(names, None)
        if reason := outcomes[0].reason:
            self.summary.untimed |= dict.fromkeys(names, reason)
            self.watcher.untimed(names, reason)
        else:
            self.timed.update(names, [teacher])

    def _drop_weights(self) -> None:
        """Removes the models that nothing needs any more; those that cells start from or learn from stay."""
        for name in self.done - self.needed:
            if self.timer is None or self.cells[name].compared_with is None or name in self.timed:
                self.folder.drop_weights(name)
