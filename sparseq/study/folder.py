"""`StudyFolder`: what a study leaves on disk.

study.json            the study's name, and its cells: what there is to do
cells/NAME/           the folder of the compression run NAME
state/NAME.json       the key of the run that NAME is, and why it failed if it did
timing/NAME.json      its latency
logs/                 what the processes of the runs printed
"""

import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sparseq.checkpoint import WEIGHTS
from sparseq.errors import InputError
from sparseq.failures import writing
from sparseq.paths import check_new_folder, names_in
from sparseq.reading import brief, build, read_json
from sparseq.train import Recipe, RunResult
from sparseq.train.durable import PARTIAL, write_whole
from sparseq.train.folder import METRICS, RECIPE, RunFolder
from sparseq.train.lock import LOCK, run_lock

from .cells import Cell
from .records import DONE, FAILED, MISSING, Latency, Record, StudyResults
from .study_file import Study

STUDY, CELLS, STATE, TIMING, LOGS, REPORT = "study.json", "cells", "state", "timing", "logs", "report"
FORMAT = 1


@dataclass(frozen=True)
class Listed:
    """A cell as `study.json` lists it: what a report needs to know of it before it has run."""

    name: str
    key: str
    grids: tuple[str, ...]
    size: str
    task: str
    methods: tuple[str, ...]
    seed: int
    settings: dict[str, Any]
    is_teacher: bool
    compared_with: str | None


@dataclass(frozen=True)
class Timed:
    """A cell's latency by batch size, and where it was measured.

    teacher: the cell beside which it was measured. way: how the model's encoder ran, as `sparseq.nn.fused_way` says.
    """

    latency: dict[str, Latency]
    processor: str
    threads: int
    teacher: str
    way: str


class StudyFolder:
    """The folder that `--out` names."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def check(self, study: Study) -> None:
        """Raises InputError if the folder cannot be used, or holds something else than this study."""
        check_new_folder(self.path, "--out")
        if (self.path / STUDY).exists():
            there = self._read()["name"]
            if there != study.name:
                raise InputError(
                    f"--out {self.path} holds another study, {there!r}, and the file's is {study.name!r}: give another "
                    "folder"
                )
        elif self.path.is_dir():
            strange = [name for name in names_in(self.path) if name != LOCK and not name.endswith(PARTIAL)]
            if strange:
                raise InputError(
                    f"--out {self.path} is not empty ({strange[0]} is in it) and holds no study: give a new folder"
                )

    def locked(self, say: Callable[[str], None]) -> AbstractContextManager[None]:
        """Keeps other studies out of the folder inside the block: see `run_lock`."""
        return run_lock(self.path, say, ours=(self.path / STUDY).exists())

    def begin(self, study: Study, cells: Iterable[Cell]) -> None:
        """Writes what there is to do."""
        listed = [
            Listed(
                cell.name, cell.key, cell.grids, cell.size, cell.task, cell.recipe.methods, cell.recipe.seed,
                dict(cell.varied), cell.is_teacher, cell.compared_with,
            )
            for cell in cells
        ]  # fmt: skip
        content = {
            "format": FORMAT,
            "name": study.name,
            "sizes": [size.name for size in study.sizes],
            "tasks": [task.name for task in study.tasks],
            "common": dict(study.common),
            "cells": [asdict(one) for one in listed],
        }
        for name in (CELLS, STATE, TIMING, LOGS):
            with writing(self.path / name):
                (self.path / name).mkdir(parents=True, exist_ok=True)
        for stale in (self.path / STATE).glob("*.progress"):  # of processes that were killed
            stale.unlink(missing_ok=True)
        write_whole(self.path / STUDY, json.dumps(content, indent=1) + "\n")

    def cell(self, name: str) -> Path:
        """The folder of the cell's run."""
        return self.path / CELLS / name

    def is_done(self, cell: Cell | Listed) -> bool:
        """Whether the cell's run has finished with the key that it has now."""
        return (self.cell(cell.name) / METRICS).exists() and self._state(cell.name).get("key") == cell.key

    def has_weights(self, name: str) -> bool:
        """Whether the finished run still has its model."""
        return (self.cell(name) / WEIGHTS).exists()

    def seconds(self, name: str) -> float:
        """Wall time of the finished run; 0 if its numbers cannot be read."""
        try:
            return RunResult.from_folder(self.cell(name)).seconds
        except InputError:
            return 0.0

    def failure(self, cell: Cell | Listed) -> str | None:
        """Why the cell failed, one sentence; None if it did not."""
        state = self._state(cell.name)
        return str(state["reason"]) if state.get("key") == cell.key and state.get("reason") else None

    def mark(self, cell: Cell, reason: str | None = None) -> None:
        """Records that the cell is begun or done, or why it failed."""
        write_whole(self.path / STATE / f"{cell.name}.json", json.dumps({"key": cell.key, "reason": reason}) + "\n")

    def forget(self, name: str) -> None:
        """Removes a run whose settings or data are not those of the cell any more."""
        with writing(self.cell(name)):
            shutil.rmtree(self.cell(name), ignore_errors=True)
            (self.path / TIMING / f"{name}.json").unlink(missing_ok=True)

    def is_other_run(self, cell: Cell, recipe: Mapping[str, Any]) -> bool:
        """Whether the cell's folder holds what the cell cannot go on from.

        That is a run with another key; one that begun where models or data had other paths than in `recipe`, the
        settings of the cell's run; and what is left of a run that was being removed.
        """
        if not self.cell(cell.name).exists():
            return False
        if self._state(cell.name).get("key") not in (None, cell.key):
            return True
        try:
            RunFolder(self.cell(cell.name)).check(Recipe.from_dict(recipe).validate().resolved())
        except InputError:
            return True
        return False

    def drop_weights(self, name: str) -> None:
        """Removes the model of a finished run; its numbers stay."""
        (self.cell(name) / WEIGHTS).unlink(missing_ok=True)

    def keep_timing(self, name: str, timed: Timed) -> None:
        """Writes the cell's latency."""
        write_whole(self.path / TIMING / f"{name}.json", json.dumps(asdict(timed), indent=1) + "\n")

    def timing(self, cell: Cell | Listed) -> Timed | None:
        """The cell's latency; None if it was not measured beside the teacher that the study has now.

        The first versions did not record all that `Timed` has: their times are measured again.
        """
        path = self.path / TIMING / f"{cell.name}.json"
        if not path.exists():
            return None
        try:
            found = build(Timed, read_json(path))
        except ValueError:
            return None
        return found if found.teacher == cell.compared_with else None

    def results(self) -> StudyResults:
        """Everything that is known of the study's cells. Raises InputError if the folder holds no study."""
        content = self._read()
        try:
            cells = [build(Listed, values) for values in content["cells"]]
            sizes, tasks = tuple(content["sizes"]), tuple(content["tasks"])
        except (KeyError, ValueError, TypeError) as error:
            raise self._odd(error) from None
        metrics: dict[str, str] = {}
        conditions: dict[str, Any] = {}
        records = []
        for cell in cells:
            record, result = self._record(cell)
            records.append(record)
            if result is not None:
                scored = result.task_definition.get("score_metrics") or list(result.metrics)
                metrics.setdefault(cell.task, " and ".join(map(str, scored)))
                conditions.setdefault("versions", result.versions)
                processors = conditions.setdefault("processors", [])
                if result.processor and result.processor not in processors:
                    processors.append(result.processor)
        return StudyResults(
            content["name"], sizes, tasks, metrics, tuple(records), dict(content.get("common", {})), conditions
        )

    def _record(self, cell: Listed) -> tuple[Record, RunResult | None]:
        known: dict[str, Any] = {
            "cell": cell.name, "grids": cell.grids, "task": cell.task, "size": cell.size,
            "methods": cell.methods, "seed": cell.seed, "settings": cell.settings, "is_teacher": cell.is_teacher,
        }  # fmt: skip
        if not self.is_done(cell):
            reason = self.failure(cell)
            return Record(**known, state=MISSING if reason is None else FAILED, reason=reason or ""), None
        try:
            result = RunResult.from_folder(self.cell(cell.name))
        except InputError as error:
            return Record(**known, state=FAILED, reason=brief(error)), None
        timed = self.timing(cell)
        return (
            Record(
                **known,
                state=DONE,
                score=result.score,
                held_out_score=result.held_out_score,
                rows=sum(result.rows[split] for split in result.task_definition["validation_splits"]),
                right=result.right,
                sparsity_reached=result.sparsity_reached,
                paper_bytes=result.paper_bytes,
                stored_bytes=result.stored_bytes,
                parameters=result.parameters,
                nonzero=result.nonzero,
                seconds=result.seconds,
                latency=timed.latency if timed else {},
                processor=timed.processor if timed else None,
                threads=timed.threads if timed else None,
                way=timed.way if timed else None,
                recipe=self._settings(cell.name),
            ),
            result,
        )

    def _settings(self, name: str) -> dict[str, Any]:
        """The settings of the cell's run that are not defaults, as JSON; empty if they cannot be read."""
        try:
            recipe, default = Recipe.from_file(self.cell(name) / RECIPE), Recipe()
        except InputError:
            return {}
        values = {setting: getattr(recipe, setting) for setting in Recipe.settings()}
        return {
            setting: list(value) if isinstance(value, tuple) else value
            for setting, value in values.items()
            if value != getattr(default, setting) and setting != "out"
        }

    def _state(self, name: str) -> Mapping[str, Any]:
        path = self.path / STATE / f"{name}.json"
        try:
            found = read_json(path) if path.exists() else {}
        except InputError:
            found = {}
        return found if isinstance(found, dict) else {}

    def _read(self) -> dict[str, Any]:
        if not self.path.is_dir():
            raise InputError(f"there is no folder {self.path}: give one that `sparseq study run` has written")
        if not (self.path / STUDY).exists():
            raise InputError(f"{self.path} holds no study ({STUDY} is missing): give a folder of `sparseq study run`")
        try:
            found = read_json(self.path / STUDY)
        except InputError as error:
            raise self._odd(error) from error
        if not isinstance(found, dict) or found.get("format") != FORMAT or not isinstance(found.get("name"), str):
            raise self._odd(ValueError(f"it has not format {FORMAT}"))
        return found

    def _odd(self, error: Exception) -> InputError:
        return InputError(
            f"{self.path / STUDY} is not what `sparseq study run` wrote ({brief(error)}): run the study again"
        )
