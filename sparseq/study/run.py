"""`run_study` and `plan_study`: a study from its file to its folder."""

import fnmatch
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from sparseq.errors import InputError
from sparseq.train import interrupt
from sparseq.train.quiet import quiet_libraries

from .cells import Cell, cells_of
from .console import StudyConsole, span
from .cost import Cost, Costs, total
from .folder import LOGS, StudyFolder
from .options import Options, processors
from .pool import LocalPool, Pool
from .records import StudyResults
from .runner import Runner, Summary
from .study_file import Study


@dataclass(frozen=True)
class StudyPlan:
    """What a study would do. to_run: the cells that are missing, and those that they need; costs: of these."""

    cells: tuple[Cell, ...]
    to_run: tuple[Cell, ...]
    costs: Mapping[str, Cost]
    checkpoints: int
    is_measured: bool

    def as_dict(self) -> dict[str, Any]:
        """As JSON: the cells to run, with seconds and bytes, and how many are done."""
        cells = [
            {"cell": cell.name, "needs": list(cell.needs), **asdict(self.costs[cell.name])} for cell in self.to_run
        ]
        return {"cells": len(self.cells), "to_run": cells, "checkpoints": self.checkpoints}


def plan_study(path: str | Path, out: str | Path, options: Options, changes: Mapping[str, Any]) -> StudyPlan:
    """What `run_study` would do; nothing is written. Raises InputError like it."""
    study = Study.from_file(path, changes)
    folder = StudyFolder(out)
    folder.check(study)
    cells = chosen(cells_of(study), options.only, options.grids)
    return _plan(cells, folder, options)


def run_study(
    path: str | Path, out: str | Path, options: Options, changes: Mapping[str, Any], *, silent: bool = False
) -> tuple[Summary, StudyResults]:
    """Runs the cells of a study that are missing in the folder `out`, and returns how it stands, and its results.

    changes: common settings that go before those of the file.

    A cell that fails does not stop the others; its reason is in the summary, and it is tried again the next time.
    After an interruption, of any kind, the same call goes on: a cell that was running continues from its last
    checkpoint.

    Raises InputError for a study file or a folder that cannot be used, before anything is written.
    """
    study = Study.from_file(path, changes)
    folder = StudyFolder(Path(out).absolute())
    folder.check(study)
    everything = cells_of(study)
    cells = chosen(everything, options.only, options.grids)
    quiet_libraries()
    planned = _plan(cells, folder, options)
    with _pool(options, folder) as pool, interrupt.interruptible():
        jobs = max(1, pool.free())
        console = StudyConsole(planned.to_run, planned.costs, folder, jobs, silent=silent)
        with folder.locked(console.say):
            folder.begin(study, everything)
            seconds, disk, _ = total(planned.costs)
            done = len(planned.cells) - len(planned.to_run)
            console.say(
                f"{study.name}: {len(planned.cells):,} cells, {done:,} done before; about {span(seconds / jobs)} and "
                f"{disk / 1e6:,.0f} MB for the others"
            )
            timer = (
                (lambda: LocalPool(1, options.threads or processors(), folder.path / LOGS)) if options.time else None
            )
            runner = Runner(cells, folder, pool, console, keep=options.keep, timer=timer, study=everything)
            with console.shown():
                summary = runner.run()
    return summary, folder.results()


def chosen(cells: Sequence[Cell], only: Sequence[str], grids: Sequence[str] = ()) -> list[Cell]:
    """The cells whose names match a pattern, of these grids, and those that they need; without patterns or grids, those
    of all names, or of all grids.

    Raises InputError for a pattern that matches none, for a grid that the study does not have, and if no cell is left.
    """
    if not only and not grids:
        return list(cells)
    for pattern in only:
        if not any(fnmatch.fnmatchcase(cell.name, pattern) for cell in cells):
            raise InputError(f"--only {pattern} matches no cell of the study: one is named {cells[0].name}")
    known = list(dict.fromkeys(name for cell in cells for name in cell.grids))
    for name in grids:
        if name not in known:
            raise InputError(f"--grid {name}: there is no such grid in the study; its grids are {', '.join(known)}")
    wanted = {
        cell.name
        for cell in cells
        if (not only or any(fnmatch.fnmatchcase(cell.name, pattern) for pattern in only))
        and (not grids or set(grids) & set(cell.grids))
    }
    if not wanted:
        raise InputError(f"--only and --grid leave no cell: no cell of {', '.join(grids)} is named {', '.join(only)}")
    for cell in reversed(cells):
        if cell.name in wanted:
            wanted.update(cell.needs, [cell.compared_with] if cell.compared_with else [])
    return [cell for cell in cells if cell.name in wanted]


def _plan(cells: Sequence[Cell], folder: StudyFolder, options: Options) -> StudyPlan:
    done = {cell.name for cell in cells if folder.is_done(cell)}
    costs = Costs(cells, [(cell, folder.seconds(cell.name)) for cell in cells if cell.name in done])
    to_run = [cell for cell in cells if cell.name not in done]
    found = {cell.name: costs.of(cell) for cell in to_run}
    return StudyPlan(tuple(cells), tuple(to_run), found, costs.checkpoints(to_run, options.jobs), costs.is_measured)


def _pool(options: Options, folder: StudyFolder) -> "closing[Pool]":
    if options.ray is not None:
        from .ray_pool import RayPool

        cpus = options.threads or 1
        return closing(RayPool(options.ray, folder.path.resolve(), cpus=cpus, gpus=options.gpus))
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return closing(LocalPool(options.jobs, options.threads_per_job, folder.path / LOGS, gpus))
