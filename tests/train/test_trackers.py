"""What trackers are told: by stand-ins for their libraries, and where they are installed by themselves (slow)."""

import dataclasses
import os
import sqlite3
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from broken_runs import break_off
from fresh import FreshProcesses

from sparseq.errors import InputError
from sparseq.train import Recipe, RunResult, compress, trackers
from sparseq.train.curve import CURVE, from_csv
from sparseq.train.reports import final_values, told_settings


class Recorder:
    """Stands in for the three libraries: runs by identifier, with all that they were told."""

    def __init__(self) -> None:
        self.runs: dict[str, SimpleNamespace] = {}
        self.active: SimpleNamespace | None = None
        self.fails = False

    def begin(self, known: str | None, name: str, settings: dict[str, Any]) -> SimpleNamespace:
        run = self.runs.get(known or "")
        if run is None:
            run = SimpleNamespace(
                id=known or f"id-{len(self.runs)}", name=name, settings=settings, logged=[], result={}, ends=[], begun=0
            )
            self.runs[run.id] = run
        run.begun += 1
        self.active = run
        print("printed by a library")
        return run

    def log(self, values: dict[str, float], step: int) -> None:
        assert self.active is not None
        if self.fails:
            raise ConnectionError("no route to host")
        self.active.logged.append((step, values))

    def wandb(self) -> Any:
        def init(*, name: str, id: str | None, config: dict[str, Any], **options: Any) -> Any:
            run = self.begin(id, name, config)
            assert (options["resume"] == "allow") == (id is not None) and options["project"] == "sparseq"
            return SimpleNamespace(
                id=run.id, offline=True, url=None, dir="wandb/run/files", log=self.log, summary=run.result,
                finish=lambda exit_code: run.ends.append(exit_code),
            )  # fmt: skip

        return {"init": init, "Settings": lambda **settings: settings}

    def mlflow(self) -> Any:
        def start_run(*, run_id: str | None, run_name: str, nested: bool, tags: dict[str, str]) -> Any:
            run = self.begin(run_id, run_name, {})
            assert not nested and tags == {"mlflow.source.name": "sparseq"}
            return SimpleNamespace(info=SimpleNamespace(run_id=run.id, run_name=run_name))

        def log_params(settings: dict[str, Any]) -> None:
            assert self.active is not None and not self.active.settings
            self.active.settings = settings

        return {
            "active_run": lambda: None,
            "start_run": start_run,
            "log_params": log_params,
            "log_metrics": self.log,
            "end_run": lambda status: self.active.ends.append(status),
        }

    def trackio(self) -> Any:
        def init(*, project: str, name: str, config: dict[str, Any], resume: str) -> Any:
            assert project == "sparseq" and (resume == "allow") == (name in self.runs)
            run = self.begin(name, name, config)
            return SimpleNamespace(log=self.log, finish=lambda: run.ends.append(None))

        return {"init": init}


@pytest.fixture(params=["wandb", "mlflow", "trackio"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Recorder]:
    """The name of a tracker, and the stand-in that is imported in the place of its library."""
    name, recorder = request.param, Recorder()
    module = ModuleType(name)
    vars(module).update(getattr(recorder, name)())
    monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(trackers, "find_spec", lambda name: True)
    for variable in ("WANDB_PROJECT", "TRACKIO_PROJECT"):
        monkeypatch.delenv(variable, raising=False)
    return name, recorder


def expected(result: RunResult) -> list[tuple[int, dict[str, float]]]:
    """What a tracker is to be told of the steps of a run."""
    told = []
    for step in from_csv(Path(result.out) / CURVE):
        if step.score is not None or step.step in (10, result.steps):
            values = {"train/loss": step.loss, "train/learning_rate": step.learning_rate}
            values |= {"train/sparsity": step.sparsity, "validation/score": step.score}
            told.append((step.step, {name: value for name, value in values.items() if value is not None}))
    return told


@pytest.mark.parametrize(("after", "kind"), [(2, KeyboardInterrupt), (12, KeyboardInterrupt), (12, RuntimeError)])
def test_a_run_that_continues_is_one_run_and_told_once(
    after: int,
    kind: type[BaseException],
    library: tuple[str, Recorder],
    make_recipe: Callable[..., Recipe],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Also if it is stopped before its first checkpoint, which is after 8 steps, and between two of them."""
    name, recorder = library
    recipe = make_recipe(report_to=name, eval_every=6, epochs=1.5, save_steps=8)
    break_off(recipe, after, kind)
    result = compress(recipe)
    (run,) = recorder.runs.values()
    assert run.begun == 2 and run.name.startswith("out")
    final = [(result.steps, final_values(result))]
    assert run.logged + ([(14, run.result)] if name == "wandb" else []) == expected(result) + final
    status = "KILLED" if kind is KeyboardInterrupt else "FAILED"
    assert run.ends == {"wandb": [1, 0], "mlflow": [status, "FINISHED"], "trackio": [None, None]}[name]
    assert run.settings == told_settings(recipe.resolved())
    captured = capsys.readouterr()
    assert "reporting on to" in captured.err and captured.out == ""
    compress(recipe)  # finished before
    assert run.begun == 2


def test_a_tracker_that_joins_later_is_told_what_was_before(
    library: tuple[str, Recorder], make_recipe: Callable[..., Recipe]
) -> None:
    name, recorder = library
    recipe = make_recipe(eval_every=6, epochs=1.5, save_steps=8)
    break_off(recipe, 12, KeyboardInterrupt)
    result = compress(recipe.replace(report_to=(name,)))
    (run,) = recorder.runs.values()
    assert run.logged[:4] == expected(result) and [step for step, _ in expected(result)] == [6, 10, 12, 14]


def test_a_tracker_that_fails_on_the_way_is_left_out(
    library: tuple[str, Recorder], make_recipe: Callable[..., Recipe], capsys: pytest.CaptureFixture[str]
) -> None:
    name, recorder = library
    recorder.fails = True
    result = compress(make_recipe(report_to=name, methods="none", epochs=1.5))
    assert result.steps == 14
    assert capsys.readouterr().err.count(f"reporting to {name} failed (no route to host): the run goes on") == 1


def test_a_tracker_that_cannot_begin(
    library: tuple[str, Recorder], make_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    name, recorder = library
    monkeypatch.setattr(recorder, "begin", lambda *given: (_ for _ in ()).throw(RuntimeError("no API key")))
    recipe = make_recipe(report_to=name)
    with pytest.raises(InputError, match=rf"--report-to {name}: {name} cannot begin a run \(no API key\)"):
        compress(recipe)
    assert not list(Path(str(recipe.out)).glob("*"))


def test_a_model_that_is_not_trained_is_reported(
    library: tuple[str, Recorder], make_recipe: Callable[..., Recipe], tiny_teacher_dir: Path
) -> None:
    name, recorder = library
    result = compress(make_recipe(model=str(tiny_teacher_dir), report_to=name, methods="ptq", epochs=0))
    (run,) = recorder.runs.values()
    assert (run.result or run.logged[-1][1]) == final_values(result) and len(run.ends) == 1


def test_unknown_and_missing_trackers(make_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="--report-to wants any of tensorboard, wandb, mlflow, trackio"):
        compress(make_recipe(report_to="paper"))
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="--report-to wandb needs wandb, which is not installed: pip install wandb"):
        compress(make_recipe(report_to="wandb"))
    assert not Path(str(make_recipe().out)).exists()


def test_settings_are_told_without_folders(make_recipe: Callable[..., Recipe]) -> None:
    recipe = make_recipe(layers="0,1", methods="none", data_dir="/data/glue").resolved()
    found = told_settings(recipe)
    assert found["layers"] == "0,1" and found["methods"] == "none" and found["train_file"] == "train.csv"
    assert not any("/" in str(value) for value in found.values()) and not {"out", "data_dir"} & set(found)
    assert told_settings(make_recipe(model="google/some-bert"))["model"] == "google/some-bert"


def test_results_have_names_that_every_tracker_takes(make_recipe: Callable[..., Recipe]) -> None:
    result = compress(make_recipe(methods="none", epochs=0.2))
    odd = dataclasses.replace(result, metrics={"<lambda>": 0.5, "accuracy": float("nan")}, held_out_metrics={"f1": 1.0})
    found = final_values(odd)
    assert found["final/_lambda_"] == 0.5 and found["final/held_out_f1"] == 1.0
    assert "final/accuracy" not in found and "final/kept_step" not in found


def test_an_import_prints_nothing_where_results_belong(fresh: FreshProcesses) -> None:
    """transformers prints while it is imported, if W&B is offline."""
    done = fresh.run("from sparseq.train import compress", WANDB_MODE="offline")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", ["wandb", "mlflow", "trackio", "tensorboard"])
def test_the_libraries_themselves(
    name: str, make_recipe: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that was interrupted, without network; what was logged is read back, but for W&B's files."""
    pytest.importorskip(name, reason=f"{name} is not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    if name == "mlflow":
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/runs.db")
    if name == "trackio":
        monkeypatch.setattr(import_module("trackio.utils"), "TRACKIO_DIR", tmp_path / "trackio")
        monkeypatch.setattr(import_module("trackio.sqlite_storage"), "TRACKIO_DIR", tmp_path / "trackio")
    recipe = make_recipe(report_to=name, eval_every=6, epochs=1.5, save_steps=8)
    break_off(recipe, 12, KeyboardInterrupt)
    result = compress(recipe)
    losses = [(step, values["train/loss"]) for step, values in expected(result)]
    if name == "mlflow":
        client = import_module("mlflow").MlflowClient()
        (run,) = client.search_runs([one.experiment_id for one in client.search_experiments()])
        assert run.info.status == "FINISHED" and run.data.metrics["final/score"] == result.score
        assert [(one.step, one.value) for one in client.get_metric_history(run.info.run_id, "train/loss")] == losses
        assert str(tmp_path) not in str(run.data.params) + str(run.data.tags)
    elif name == "trackio":
        (database,) = (tmp_path / "trackio").glob("sparseq.db")
        rows = sqlite3.connect(database).execute("SELECT step, metrics FROM metrics ORDER BY id").fetchall()
        assert [step for step, _ in rows] == [6, 10, 12, 14, 14]
        assert str(tmp_path).encode() not in database.read_bytes()
    elif name == "tensorboard":
        module = import_module("tensorboard.backend.event_processing.event_accumulator")
        events = module.EventAccumulator(str(Path(result.out) / "tensorboard"))
        events.Reload()
        found = [(one.step, one.value) for one in events.Scalars("train/loss")]
        assert found == [(step, pytest.approx(loss, rel=1e-6)) for step, loss in losses]
    else:
        first, second = sorted(Path("wandb").glob("offline-run-*"), key=os.path.getmtime)
        assert first.name.rpartition("-")[2] == second.name.rpartition("-")[2]
        assert str(tmp_path).encode() not in b"".join(one.read_bytes() for one in Path("wandb").rglob("*.wandb"))
