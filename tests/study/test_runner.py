"""The order of cells, what a failure stops, and what is run again: with a pool that trains nothing."""

import json
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from sparseq.errors import InputError
from sparseq.study.cells import Cell, cells_of
from sparseq.study.folder import StudyFolder, Timed
from sparseq.study.jobs import Job, Outcome
from sparseq.study.records import FAILED, Latency
from sparseq.study.run import Options, chosen, plan_study
from sparseq.study.runner import TRIES, Runner, Summary
from sparseq.study.study_file import Study
from sparseq.train import Recipe
from sparseq.train.interrupt import interruptible

GRID = """
[[grids]]
name = "subsets"
methods = ["none", "qat", "kd", "qat,kd"]
seed = [0, 1]
"""


class FakePool:
    """Ends its jobs in order; `fail` says what happens to one: a reason, or a lost process."""

    def __init__(self, room: int, fail: Callable[[Job], Outcome | None] = lambda job: None) -> None:
        self.room, self.fail = room, fail
        self.jobs: list[Job] = []
        self.seen: list[str] = []
        self.most = 0
        self.closed = False

    def free(self) -> int:
        return self.room - len(self.jobs)

    def submit(self, job: Job) -> None:
        assert self.free() > 0
        self.jobs.append(job)
        self.seen.append(job.name)
        self.most = max(self.most, len(self.jobs))

    def wait(self, seconds: float) -> list[Outcome]:
        if not self.jobs:
            return []
        job = self.jobs.pop(0)
        outcome = self.fail(job)
        if outcome is None:
            outcome = Outcome(job.name)
            if job.recipe is not None:
                finish(Path(job.recipe["out"]))
            else:
                keep_times(job)
        return [outcome]

    def close(self) -> None:
        self.closed = True


class Silent:
    def started(self, cell: Cell, progress: Path) -> None: ...

    def ended(self, cell: Cell, reason: str | None) -> None: ...

    def lost(self, cell: Cell, reason: str, again: bool) -> None: ...

    def timing(self, cells: Sequence[str], progress: Path | None) -> None: ...

    def untimed(self, cells: Sequence[str], reason: str) -> None: ...

    def look(self) -> None: ...


def finish(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / "metrics.json").write_text("{}")
    (out / "model.safetensors").write_text("weights")


def keep_times(job: Job) -> None:
    assert job.timing is not None
    folder = StudyFolder(job.timing["folder"])
    for name in [job.timing["teacher"], *job.timing["cells"]]:
        latency = {"1": Latency(1, 1, 1, 2, 2, 2)}
        folder.keep_timing(name, Timed(latency, "processor", 1, job.timing["teacher"], "one call"))


@pytest.fixture
def begun(study_file: Callable[..., Path], tmp_path: Path) -> tuple[list[Cell], StudyFolder]:
    study = Study.from_file(study_file(GRID))
    cells, folder = cells_of(study), StudyFolder(tmp_path / "study")
    folder.begin(study, cells)
    return cells, folder


def run(begun: tuple[list[Cell], StudyFolder], pool: FakePool, **options: Any) -> Summary:
    return Runner(*begun, pool, Silent(), **options).run()


def test_every_cell_runs_once_and_after_what_it_needs(begun: tuple[list[Cell], StudyFolder]) -> None:
    pool = FakePool(room=3)
    summary = run(begun, pool)
    names = [cell.name for cell in begun[0]]
    assert sorted(pool.seen) == sorted(names) and pool.most == 3
    for cell in begun[0]:
        assert all(pool.seen.index(name) < pool.seen.index(cell.name) for name in cell.needs)
    assert (summary.done, summary.failed) == (len(names), {})
    again = FakePool(room=3)
    assert run(begun, again).done == len(names)
    assert again.seen == []


def test_a_failed_cell_stops_only_those_that_need_it(begun: tuple[list[Cell], StudyFolder]) -> None:
    cells, folder = begun
    teacher = next(cell for cell in cells if cell.is_teacher and cell.recipe.seed == 1)
    pool = FakePool(2, lambda job: Outcome(job.name, "no such file") if job.name == teacher.name else None)
    summary = run(begun, pool)
    needing = {cell.name for cell in cells if teacher.name in cell.needs}
    assert summary.failed == {
        teacher.name: "no such file", **dict.fromkeys(needing, f"it needs {teacher.name}, which failed")
    }  # fmt: skip
    assert summary.done == len(cells) - len(summary.failed)
    assert not needing & set(pool.seen)
    states = {record.cell: record.state for record in folder.results().records}
    assert {name for name, state in states.items() if state == FAILED} >= {teacher.name, *needing}
    # The next time they are tried again.
    pool = FakePool(2)
    assert run(begun, pool).failed == {}
    assert set(pool.seen) == {teacher.name, *needing}


def test_a_lost_process_is_replaced_a_few_times(begun: tuple[list[Cell], StudyFolder]) -> None:
    name = begun[0][1].name
    losses = [0]

    def fail(job: Job) -> Outcome | None:
        if job.name == name and losses[0] < most:
            losses[0] += 1
            return Outcome(job.name, "its process was ended by SIGKILL", lost=True)
        return None

    most = TRIES - 1
    pool = FakePool(2, fail)
    assert run(begun, pool).failed == {}
    assert pool.seen.count(name) == TRIES
    (begun[1].cell(name) / "metrics.json").unlink()
    most, losses[0] = TRIES, 0
    assert run(begun, FakePool(2, fail)).failed == {name: "its process was ended by SIGKILL"}


def test_a_run_without_a_result_has_failed(begun: tuple[list[Cell], StudyFolder]) -> None:
    summary = run(begun, FakePool(2, lambda job: Outcome(job.name)))
    assert summary.done == 0
    assert "without a result" in summary.failed[begun[0][0].name]


def test_a_changed_cell_is_run_into_an_empty_folder(begun: tuple[list[Cell], StudyFolder]) -> None:
    cells, folder = begun
    run(begun, FakePool(2))
    (folder.path / "state" / f"{cells[2].name}.json").write_text(json.dumps({"key": "of before", "reason": None}))
    (folder.cell(cells[2].name) / "of before").write_text("")
    pool = FakePool(2)
    run(begun, pool)
    assert pool.seen == [cells[2].name]
    assert not (folder.cell(cells[2].name) / "of before").exists()


def test_models_go_once_they_are_timed_but_not_those_of_teachers(begun: tuple[list[Cell], StudyFolder]) -> None:
    cells, folder = begun
    timers: list[FakePool] = []

    def timer() -> FakePool:
        timers.append(FakePool(1))
        return timers[-1]

    run(begun, FakePool(2), keep="metrics", timer=timer)
    assert timers and all(pool.closed for pool in timers)
    kept = {cell.name for cell in cells if folder.has_weights(cell.name)}
    assert kept == {cell.name for cell in cells if cell.is_teacher}
    assert all(folder.timing(cell) is not None for cell in cells)
    # Nothing is run again for want of a model that no run to come needs.
    pool = FakePool(2)
    run(begun, pool, keep="metrics", timer=timer)
    assert pool.seen == []


def test_a_teacher_whose_model_was_removed_is_trained_again_for_a_new_cell(
    begun: tuple[list[Cell], StudyFolder],
) -> None:
    cells, folder = begun
    run(begun, FakePool(2))
    student = next(cell for cell in cells if cell.taught_by)
    folder.drop_weights(str(student.taught_by))
    folder.forget(student.name)
    pool = FakePool(2)
    run(begun, pool)
    assert pool.seen == [student.taught_by, student.name]


def test_a_list_of_cells_of_another_version_does_not_stop_the_study(
    study_file: Callable[..., Path], tmp_path: Path
) -> None:
    """The list is written anew by each run; only the study's name must be the same."""
    path, out = study_file(GRID), tmp_path / "study"
    study = Study.from_file(path)
    cells, folder = cells_of(study), StudyFolder(out)
    folder.begin(study, cells)
    run((cells, folder), FakePool(2))
    listed = json.loads((out / "study.json").read_text())
    listed["cells"] = [{"name": "of another version"}]
    (out / "study.json").write_text(json.dumps(listed))
    planned = plan_study(path, out, Options(), {})
    assert len(planned.cells) == len(cells) and planned.to_run == ()


def test_a_failed_timing_leaves_the_cell_done(begun: tuple[list[Cell], StudyFolder]) -> None:
    cells, folder = begun
    fail = lambda job: Outcome(job.name, "no memory")  # noqa: E731
    summary = run(begun, FakePool(2), keep="metrics", timer=lambda: FakePool(1, fail))
    assert summary.done == len(cells) and summary.failed == {}
    assert summary.untimed == dict.fromkeys([cell.name for cell in cells], "no memory")
    assert all(folder.has_weights(cell.name) for cell in cells)


def test_cells_are_timed_again_beside_another_teacher(
    study_file: Callable[..., Path], tiny_model_dir: Path, tmp_path: Path
) -> None:
    """A size of its own is the same run with a longer trained teacher, but its speedup is not the same."""
    own = f"[[sizes]]\nname = 'own'\nmodel = '{tiny_model_dir}'\nlayers = 1"
    folder = StudyFolder(tmp_path / "study")
    for epochs in (1, 2):
        study = Study.from_file(
            study_file('[[grids]]\nname = "g"\nmethods = ["qat"]', f"[teacher]\nepochs = {epochs}", own)
        )
        cells = cells_of(study)
        folder.begin(study, cells)
        pool, timer = FakePool(2), FakePool(1)
        run((cells, folder), pool, timer=lambda timer=timer: timer)
        ours = next(cell for cell in cells if cell.size == "own")
        assert (ours.name in pool.seen) == (epochs == 1) and timer.seen
        timed = folder.timing(ours)
        assert timed is not None and timed.teacher == ours.compared_with
    folder.keep_timing(ours.name, Timed({}, "processor", 1, "another teacher", "one call"))
    assert folder.timing(ours) is None


def test_times_of_the_first_versions_are_taken_again(begun: tuple[list[Cell], StudyFolder]) -> None:
    """They did not record how the encoder ran."""
    cells, folder = begun
    known = Timed({}, "processor", 1, cells[0].compared_with or "", "one call")
    folder.keep_timing(cells[0].name, known)
    assert folder.timing(cells[0]) == known
    path = folder.path / "timing" / f"{cells[0].name}.json"
    content = json.loads(path.read_text())
    del content["way"]
    path.write_text(json.dumps(content))
    assert folder.timing(cells[0]) is None


def test_a_model_that_cells_to_come_start_from_is_not_removed(study_file: Callable[..., Path], tmp_path: Path) -> None:
    """Those that --only leaves out count too."""
    study = Study.from_file(study_file('[[grids]]\nname = "g"\nmethods = "qat"\nmodel = "@baseline"'))
    cells, folder = cells_of(study), StudyFolder(tmp_path / "study")
    folder.begin(study, cells)
    plain = chosen(cells, ["*plain*"])
    run((plain, folder), FakePool(2), keep="metrics", study=cells)
    pool = FakePool(2)
    run((cells, folder), pool, keep="metrics")
    assert set(pool.seen) == {cell.name for cell in cells} - {cell.name for cell in plain}


def test_the_cells_of_a_grid_and_what_they_need(study_file: Callable[..., Path]) -> None:
    kd, qat = (f'[[grids]]\nname = "{name}"\nmethods = "{name}"\n' for name in ("kd", "qat"))
    cells = cells_of(Study.from_file(study_file(kd + qat)))
    found = chosen(cells, [], ["kd"])
    assert {cell.grids for cell in found if not cell.is_teacher} == {("kd",)}
    assert [cell.size for cell in found if cell.is_teacher] == ["L2"]
    assert {cell.size for cell in chosen(cells, ["*-L1-*"], ["qat"]) if not cell.is_teacher} == {"L1"}
    assert chosen(cells, [], ["kd", "qat"]) == cells
    with pytest.raises(InputError, match=r"--only and --grid leave no cell: no cell of kd is named \*-qat-\*"):
        chosen(cells, ["*-qat-*"], ["kd"])


def test_all_models_that_were_removed_are_trained_again(study_file: Callable[..., Path], tmp_path: Path) -> None:
    study = Study.from_file(study_file('[[grids]]\nname = "g"\nsizes = ["L1"]\nmethods = "qat"\nmodel = "@baseline"'))
    cells, folder = cells_of(study), StudyFolder(tmp_path / "study")
    folder.begin(study, cells)
    run((cells, folder), FakePool(2))
    *before, last = cells
    for cell in before:
        folder.drop_weights(cell.name)
    folder.forget(last.name)
    pool = FakePool(2)
    run((cells, folder), pool)
    assert pool.seen == [cell.name for cell in cells] and len(cells) == 3


def test_a_run_that_began_elsewhere_or_was_half_removed_begins_again(begun: tuple[list[Cell], StudyFolder]) -> None:
    cells, folder = begun
    moved, half, same = (folder.cell(cell.name) for cell in cells[:3])
    runner = Runner(cells, folder, FakePool(2), Silent())
    for cell in cells[:3]:
        folder.mark(cell)
        folder.cell(cell.name).mkdir()
    recipe = Recipe.from_dict(runner._recipe(cells[2])).validate().resolved()
    (same / "recipe.toml").write_text(recipe.to_toml())
    (moved / "recipe.toml").write_text(cells[0].recipe.replace(train_file="/before/train.csv").to_toml())
    (half / "config.json").write_text("{}")
    for place in (moved, half, same):
        (place / "of before").write_text("")
    run(begun, FakePool(2))
    assert [(place / "of before").exists() for place in (moved, half, same)] == [False, False, True]


def test_an_old_run_does_not_become_the_cell_when_what_it_needs_fails(begun: tuple[list[Cell], StudyFolder]) -> None:
    cells, folder = begun
    student = next(cell for cell in cells if cell.taught_by)
    finish(folder.cell(student.name))
    (folder.path / "state" / f"{student.name}.json").write_text(json.dumps({"key": "of before", "reason": None}))
    run(begun, FakePool(2, lambda job: Outcome(job.name, "no memory") if job.name == student.taught_by else None))
    pool = FakePool(2)
    run(begun, pool)
    assert student.name in pool.seen


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interruption_in_a_finalizer_ends_the_study(begun: tuple[list[Cell], StudyFolder]) -> None:
    """Python drops the KeyboardInterrupt there."""

    class Finalized:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    pool = FakePool(1, lambda job: Finalized() and None)  # type: ignore[func-returns-value]
    with pytest.raises(KeyboardInterrupt), interruptible():
        run(begun, pool)
    assert len(pool.seen) == 1
