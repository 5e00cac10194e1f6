"""Following a training: its course, evaluations while it lasts, and the best weights."""

import dataclasses
import random
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sparseq.checkpoint import read_metadata
from sparseq.errors import InputError
from sparseq.study.keys import key_of
from sparseq.train import Recipe, RunResult, compress, draw_training, following, run, trainer
from sparseq.train.curve import CURVE, Step, best_step, from_csv, to_csv
from sparseq.train.folder import RunFolder

STATIC = {"methods": "qat,mp", "qat_start": 6, "scale": "lsq", "activation": "static", "sparsity": 0.5}


class Killed(BaseException):
    """Stands for the process's end."""


def outcome(result: RunResult) -> tuple[Any, ...]:
    return result.metrics, result.kept_step, read_metadata(result.out)["sha256"], (Path(result.out) / CURVE).read_text()


def killed(recipe: Recipe, at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs the recipe until its `at`-th step of this life begins."""
    calls, step = iter(range(1, 10**6)), trainer.CompressTrainer.training_step

    def training_step(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == at:
            raise Killed
        return step(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(trainer.CompressTrainer, "training_step", training_step)
        with pytest.raises(Killed):
            compress(recipe)


def scored(scores: dict[int, float], monkeypatch: pytest.MonkeyPatch) -> dict[int, str]:
    """Makes evaluations give these scores by step, others 0; returns digests of the student, by step, as they come."""
    seen: dict[int, str] = {}
    real = following.Following._evaluate

    def evaluate(self: following.Following, state: Any) -> float:
        step = state.global_step
        seen[step] = state_of(self.prepared.student)
        with monkeypatch.context() as patch:
            patch.setattr(following, "score", lambda task, metrics: scores.get(step, 0.0))
            return real(self, state)

    monkeypatch.setattr(following.Following, "_evaluate", evaluate)
    return seen


def state_of(model: torch.nn.Module) -> str:
    return str({name: tensor.double().sum().item() for name, tensor in model.state_dict().items()})


def packed_state(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    pack = run.pack
    monkeypatch.setattr(run, "pack", lambda model: (found.append(state_of(model)), pack(model))[1])
    return found


@pytest.mark.parametrize(
    "changes",
    [{}, STATIC, pytest.param({"hidden_loss": 1.0, "precision": "bf16"}, marks=pytest.mark.slow)],
    ids=["all", "static", "hidden"],
)
def test_evaluations_change_nothing(
    changes: dict[str, Any], make_recipe: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe(**changes, epochs=1.5)
    plain = compress(recipe)
    real, states = following.Following._evaluate, []

    def random_states() -> list[Any]:
        return [torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state())]

    def evaluate(*args: Any) -> float:
        states.append(random_states())
        found = real(*args)
        states.append(random_states())
        return found

    monkeypatch.setattr(following.Following, "_evaluate", evaluate)
    watched = compress(recipe.replace(eval_every=4, out=str(tmp_path / "watched")))
    assert len(states) == 8 and states[::2] == states[1::2]
    assert read_metadata(plain.out)["sha256"] == read_metadata(watched.out)["sha256"]
    without, steps = (from_csv(Path(result.out) / CURVE) for result in (plain, watched))
    assert [step.step for step in steps if step.score is not None] == [4, 8, 12, 14]
    assert [dataclasses.replace(step, score=None) for step in steps] == without
    assert steps[-1].score == watched.score_before_packing and watched.kept_step is None


def test_the_course_of_a_training(make_recipe: Callable[..., Recipe]) -> None:
    result = compress(make_recipe(methods="mp", epochs=1, eval_every=5, lr_warmup=0.5))
    steps = from_csv(Path(result.out) / CURVE)
    assert [step.step for step in steps] == list(range(1, 10)) and all(step.loss > 0 for step in steps)
    assert steps[0].learning_rate == 0.0 and max(step.learning_rate for step in steps) == 1e-3
    assert steps[-1].sparsity == 0.6 and steps[0].sparsity == 0.0
    assert all(before.sparsity <= step.sparsity for before, step in pairwise(steps))
    figure = draw_training(result.out)
    assert figure is not None and figure.read_bytes().startswith(b"\x89PNG")
    packed = compress(make_recipe(methods="ptq", epochs=0, out=f"{result.out}-packed"))
    assert draw_training(packed.out) is None


def test_a_course_is_read_back_exactly(tmp_path: Path) -> None:
    steps = [Step(1, 0.1 + 0.2, 1e-5 / 3, None, None), Step(2, 1.0, 0.0, 0.6, 2 / 3)]
    path = tmp_path / CURVE
    path.write_text(to_csv(steps))
    assert from_csv(path) == steps
    for wrong in (
        "a,b\n", to_csv([steps[0], steps[0]]), to_csv([steps[0], dataclasses.replace(steps[1], step=3)]),
        to_csv(steps) + "3,0.5\n", to_csv(steps) + "3,x,0.0,,\n",
    ):  # fmt: skip
        path.write_text(wrong)
        with pytest.raises(InputError, match="is not the course of a training"):
            from_csv(path)


def test_the_best_step() -> None:
    scores = {2: 0.9, 4: -0.5, 6: 0.7, 8: 0.7, 10: 0.6}
    steps = [Step(step, 0.0, 0.0, None, scores.get(step)) for step in range(1, 11)]
    assert [best_step(steps, first).step for first in (0, 2, 3, 8, 9)] == [2, 2, 6, 8, 10]  # type: ignore[union-attr]
    assert best_step(steps, 11) is None and best_step(steps[:4], 3).score == -0.5  # type: ignore[union-attr]


def test_the_best_weights_are_the_result(make_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps before the final sparsity (step 11 of 16), and before quantization, do not count."""
    seen, packed = scored({3: 0.9, 12: 0.95, 15: 0.5, 17: 0.4}, monkeypatch), packed_state(monkeypatch)
    result = compress(make_recipe(methods="qat,mp", eval_every=1, keep="best", qat_start=14, held_out_rows=5))
    assert result.kept_step == 15 and result.selected_on == "held_out" and result.sparsity_reached >= 0.58
    assert packed == [seen[15]] and seen[15] != seen[16]


@pytest.mark.parametrize(
    ("changes", "kept"),
    [({"methods": "qat", "qat_start": 99}, None), ({"methods": "ptq"}, 2), ({"methods": "none"}, 2)],
    ids=["never quantized", "ptq", "plain"],
)
def test_the_best_weights_without_pruning(
    changes: dict[str, Any], kept: int | None, make_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    scored({2: 0.5}, monkeypatch)
    result = compress(make_recipe(**changes, epochs=0.5, eval_every=2, keep="best"))
    assert result.kept_step == kept and result.selected_on == (None if kept is None else "validation")


@pytest.mark.parametrize(
    ("lives", "scores"),
    [
        # The best of the first life is older than its checkpoint, or younger and then found again.
        ((7, 9), {6: 0.2, 8: 0.6, 14: 0.5}),
        pytest.param((11, 6), {10: 0.6, 14: 0.6}, marks=pytest.mark.slow),
        pytest.param((3, 15), {2: 0.9, 16: 0.3}, marks=pytest.mark.slow),
    ],
)
def test_a_broken_run_keeps_the_same_weights_and_course(
    lives: tuple[int, ...],
    scores: dict[int, float],
    make_recipe: Callable[..., Recipe],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scored(scores, monkeypatch)
    recipe = make_recipe(methods="qat", eval_every=2, keep="best", save_steps=4)
    whole = compress(recipe)
    broken = recipe.replace(out=str(tmp_path / "broken"))
    for at in lives:
        killed(broken, at, monkeypatch)
    assert outcome(compress(broken)) == outcome(whole)
    assert not RunFolder(str(broken.out)).checkpoints.exists()


def test_a_run_killed_after_its_last_step(
    make_recipe: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored({4: 0.7}, monkeypatch)
    recipe = make_recipe(methods="qat", epochs=1, eval_every=2, keep="best", save_steps=4)
    whole = compress(recipe)
    broken = recipe.replace(out=str(tmp_path / "broken"))
    with monkeypatch.context() as patch:
        patch.setattr(run, "pack", lambda model: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            compress(broken)
    assert sorted(path.name for path in RunFolder(str(broken.out)).checkpoints.glob("best-*")) == ["best-4"]
    assert outcome(compress(broken)) == outcome(whole)


def test_damaged_best_weights_are_refused(make_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch) -> None:
    scored({2: 0.7}, monkeypatch)
    recipe = make_recipe(methods="qat", eval_every=2, keep="best", save_steps=4)
    killed(recipe, 6, monkeypatch)
    (path,) = (RunFolder(str(recipe.out)).checkpoints / "best-2").glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match="best-2, with the best weights so far, is damaged"):
        compress(recipe)


def test_settings_that_go_together(make_recipe: Callable[..., Recipe]) -> None:
    with pytest.raises(InputError, match="--keep best chooses among evaluations"):
        make_recipe(keep="best").validate()
    plain, watched = make_recipe(), make_recipe(eval_every=5, report_to="tensorboard")
    assert plain.differences(watched) == [] and key_of(plain) == key_of(watched)
    best = make_recipe(eval_every=5, keep="best")
    assert best.differences(watched) == ["keep"] and best.differences(best.replace(eval_every=6)) == ["eval_every"]
    assert len({key_of(plain), key_of(best), key_of(best.replace(eval_every=6))}) == 3
