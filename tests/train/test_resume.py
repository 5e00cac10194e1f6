"""A run that is broken off, wherever, and given again ends with the very weights and metrics of an unbroken one."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fresh import FreshProcesses

from sparseq.checkpoint import read_metadata
from sparseq.errors import InputError
from sparseq.train import Recipe, RunResult, compress, folder, run, trainer
from sparseq.train.folder import RunFolder


class Killed(BaseException):
    """Stands for the process's end: nothing in the code under test catches it."""


def fingerprint(result: RunResult) -> tuple[Any, ...]:
    """Everything that must not depend on interruptions."""
    return result.metrics, result.score, result.score_before_packing, result.steps, read_metadata(result.out)["sha256"]


def breaking(function: Callable[..., Any], at: int) -> Callable[..., Any]:
    """The function, which raises `Killed` on its `at`-th call (counted from 1)."""
    calls = 0

    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == at:
            raise Killed
        return function(*args, **kwargs)

    return call


def run_broken(recipe: Recipe, owner: Any, name: str, at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, breaking(getattr(owner, name), at))
        with pytest.raises(Killed):
            compress(recipe)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Recipe], RunResult]:
    """What a recipe comes to when nothing breaks it off; each is run once."""
    known: dict[Recipe, RunResult] = {}

    def run_once(recipe: Recipe) -> RunResult:
        key = recipe.replace(out=None)
        if key not in known:
            known[key] = compress(recipe.replace(out=str(tmp_path_factory.mktemp("unbroken"))))
        return known[key]

    return run_once


# Nine steps an epoch. Each life ends at its so-many-th step; the last one resumes from the checkpoint named last.
VARIANTS: list[tuple[dict[str, Any], tuple[int, ...], int]] = [
    ({"save_steps": 4}, (3, 7, 11), 12),
    ({"save_steps": 4, "qat_start": 6, "scale": "lsq", "activation": "static"}, (6, 4), 4),
    ({"save_steps": 7, "qat_start": 6, "activation": "static", "pattern": "2:4", "sparsity": 0.5}, (8, 3), 7),
    ({"save_steps": 4, "hidden_loss": 1.0, "regrow": True, "pattern": "unstructured", "prune_updates": 4}, (6, 8), 8),
    ({"save_steps": 5, "methods": "mp"}, (12,), 10),
    ({"save_steps": 9}, (10,), 9),
    ({"save_steps": 5, "epochs": 1.5}, (13,), 10),
    ({"save_steps": 4, "precision": "bf16"}, (3, 11), 8),
    ({"save_steps": 4, "qat_start": 6, "activation": "static", "precision": "bf16"}, (6, 4), 4),
    ({"save_steps": 4, "hidden_loss": 1.0, "precision": "bf16"}, (6, 8), 8),
]


# What others have too: 2:4 is selected as any pattern is, `mp` alone is a part of all three, and of bf16 one is left.
SELDOM = [2, 4, 7, 9]


@pytest.mark.parametrize(
    ("changes", "lives", "resumed"),
    [pytest.param(*variant, marks={0: [pytest.mark.processor]}.get(i, [pytest.mark.slow] if i in SELDOM else []))
     for i, variant in enumerate(VARIANTS)],
    ids=str,
)  # fmt: skip
def test_broken_in_training(
    changes: dict[str, Any],
    lives: tuple[int, ...],
    resumed: int,
    make_recipe: Callable[..., Recipe],
    unbroken: Callable[[Recipe], RunResult],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = unbroken(make_recipe(**changes))
    recipe = make_recipe(**changes, out=str(tmp_path / "broken"))
    for step in lives:
        run_broken(recipe, trainer.CompressTrainer, "training_step", step, monkeypatch)
    last = RunFolder(tmp_path / "broken").last_checkpoint()
    assert last is not None and last[1].step == resumed
    assert fingerprint(compress(recipe)) == fingerprint(whole)
    assert not RunFolder(tmp_path / "broken").checkpoints.exists()


@pytest.mark.parametrize(
    ("owner", "name", "at"),
    [
        pytest.param(folder.RunFolder, "begin", 1, marks=pytest.mark.slow),
        (trainer.CompressTrainer, "_save_optimizer_and_scheduler", 2),
        pytest.param(trainer.CompressTrainer, "_save_rng_state", 2, marks=pytest.mark.processor),
        (folder.RunFolder, "complete", 2),
        pytest.param(folder, "write_sealed", 1, marks=pytest.mark.slow),
        (folder, "seal", 2),
        (folder.RunFolder, "make_room", 3),
        (folder.shutil, "rmtree", 2),
        pytest.param(run, "evaluate_model", 1, marks=pytest.mark.processor),
        (run, "pack", 1),
        (run.checkpoint.write, "save_file", 1),
        pytest.param(run.checkpoint, "load", 1, marks=pytest.mark.slow),
        pytest.param(run, "evaluate_model", 2, marks=pytest.mark.slow),
        (folder.RunFolder, "finish", 1),
        (folder.RunFolder, "tidy", 1),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_broken_elsewhere(
    owner: Any,
    name: str,
    at: int,
    make_recipe: Callable[..., Recipe],
    unbroken: Callable[[Recipe], RunResult],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = make_recipe(save_steps=3, epochs=1, out=str(tmp_path / "broken"))
    whole = unbroken(recipe)
    run_broken(recipe, owner, name, at, monkeypatch)
    assert fingerprint(compress(recipe)) == fingerprint(whole)
    assert not RunFolder(tmp_path / "broken").checkpoints.exists()


def test_half_written_files_do_not_count(make_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = make_recipe(save_steps=4)
    run_broken(recipe, trainer.CompressTrainer, "training_step", 7, monkeypatch)
    kept = RunFolder(str(recipe.out))
    unmarked = kept.checkpoints / "checkpoint-6"
    unmarked.mkdir()
    (unmarked / "model.safetensors").write_bytes(b"half")
    (kept.path / "metrics.json.partial").write_text("{")
    last = kept.last_checkpoint()
    assert last is not None and last[1].step == 4
    kept.clear_incomplete()
    assert not unmarked.exists()
    first = compress(recipe)
    assert first.steps == 18 and first.seconds > last[1].seconds


def test_another_number_of_processes_cannot_go_on(
    make_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe(save_steps=4)
    with monkeypatch.context() as patch:
        patch.setattr(folder.Marker, "__init__", _two_processes(folder.Marker.__init__))
        run_broken(recipe, trainer.CompressTrainer, "training_step", 7, monkeypatch)
    with pytest.raises(InputError, match=r"begun by 2 process\(es\)"):
        compress(recipe)


def _two_processes(init: Callable[..., None]) -> Callable[..., None]:
    return lambda self, step, max_steps, seconds, world_size, *rest: init(self, step, max_steps, seconds, 2, *rest)


def arguments(recipe: Recipe, epochs: int) -> list[str]:
    settings = {
        "model": recipe.model, "teacher": recipe.teacher, "train-file": recipe.train_file,
        "validation-file": recipe.validation_file, "max-length": 32, "batch-size": 8, "epochs": epochs, "lr": 1e-3,
        "save-steps": 5, "out": recipe.out,
    }  # fmt: skip
    return ["compress", *(part for name, value in settings.items() for part in (f"--{name}", str(value)))]


@pytest.mark.slow
def test_kill_9(make_recipe: Callable[..., Recipe], tmp_path: Path, fresh_training: FreshProcesses) -> None:
    """Three real kills: while it starts or early in training, in the middle, and near the end."""
    number = tmp_path / "number"

    def begin(recipe: Recipe) -> Future[subprocess.CompletedProcess[str]]:
        """Of a process that writes its number into the file `number`."""
        number.unlink(missing_ok=True)
        given = arguments(recipe, epochs=6)
        code = f"import os, sys; open({str(number)!r}, 'w').write(str(os.getpid()))\n"
        return pool.submit(fresh_training.run, f"{code}from sparseq.cli import main; sys.exit(main({given!r}))")

    whole, broken = (make_recipe(out=str(tmp_path / name)) for name in ("whole", "broken"))
    markers = RunFolder(tmp_path / "broken").checkpoints
    with ThreadPoolExecutor(1) as pool:
        assert begin(whole).result().returncode == 0
        for after in (0, 15, 35):
            running = begin(broken)
            deadline = time.monotonic() + 120
            while not running.done() and time.monotonic() < deadline:
                steps = [int(path.name.rpartition("-")[2]) for path in markers.glob("checkpoint-*")]
                if max(steps, default=-1) >= after:
                    break
                time.sleep(0.005)
            assert not running.done(), "the run ended before it was killed"
            os.kill(int(number.read_text()), signal.SIGKILL)
            assert running.result().returncode == -signal.SIGKILL
        assert begin(broken).result().returncode == 0
    results = RunResult.from_folder(tmp_path / "whole"), RunResult.from_folder(tmp_path / "broken")
    assert fingerprint(results[0]) == fingerprint(results[1])


@pytest.mark.slow
def test_ctrl_c(make_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    recipe = make_recipe(out=str(tmp_path / "out"))
    command = [sys.executable, "-m", "sparseq.cli", *arguments(recipe, epochs=12)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not list(RunFolder(tmp_path / "out").checkpoints.glob("*/complete")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert "interrupted; the same command continues from step " in errors.splitlines()[-1]
