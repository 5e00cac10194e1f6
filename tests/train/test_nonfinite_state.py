"""NaN never gets into a checkpoint, and a run continues from the last good one."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from broken_runs import Listening
from torch import Tensor

from sparseq.checkpoint import read_metadata
from sparseq.errors import InputError
from sparseq.train import Recipe, compress, trainer
from sparseq.train.folder import RunFolder

LAYER = "bert.encoder.layer.1.intermediate.dense"


def weight(running: trainer.CompressTrainer) -> Tensor:
    return running.model.get_parameter(f"{LAYER}.weight").data


def learned_scale(running: trainer.CompressTrainer) -> Tensor:
    return running.model.get_parameter(f"{LAYER}.step_size").data


def input_scale(running: trainer.CompressTrainer) -> Tensor:
    return running.model.get_submodule(LAYER).input_scale.data  # type: ignore[union-attr]


def first_moment(running: trainer.CompressTrainer) -> Tensor:
    return running.optimizer.state[running.model.get_parameter(f"{LAYER}.weight")]["exp_avg"]


def second_moment(running: trainer.CompressTrainer) -> Tensor:
    return running.optimizer.state[running.model.get_parameter(f"{LAYER}.weight")]["exp_avg_sq"]


PLACES: list[Callable[[trainer.CompressTrainer], Tensor]] = [
    weight, learned_scale, input_scale, first_moment, second_moment,
]  # fmt: skip


@pytest.fixture
def recipe(make_recipe: Callable[..., Recipe]) -> Recipe:
    return make_recipe(methods="qat,mp", scale="lsq", activation="static", epochs=1, save_steps=3, precision="fp32")


@pytest.fixture(scope="module")
def unbroken() -> dict[Recipe, str]:
    """The digest of what a recipe without its folder comes to; each is run once."""
    return {}


def check_goes_on(recipe: Recipe, unbroken: dict[Recipe, str], tmp_path: Path) -> None:
    """From step 3, where nothing gets in its way any more, to what an unbroken run comes to."""
    last = RunFolder(str(recipe.out)).last_checkpoint()
    assert last is not None and last[1].step == 3
    listening = Listening()
    found = read_metadata(compress(recipe, reporter=listening).out)["sha256"]
    assert any(line.startswith("going on from step 3 ") for line in listening.said)
    key = recipe.replace(out=None)
    if key not in unbroken:
        unbroken[key] = read_metadata(compress(recipe.replace(out=str(tmp_path / "unbroken"))).out)["sha256"]
    assert found == unbroken[key]


@pytest.mark.parametrize(
    ("place", "value"),
    [*((place, math.nan) for place in PLACES), (weight, math.inf),
     *(pytest.param(place, math.inf, marks=pytest.mark.slow) for place in PLACES if place is not weight)],
    ids=lambda given: getattr(given, "__name__", str(given)),
)  # fmt: skip
def test_what_is_saved_is_finite(
    place: Callable[[trainer.CompressTrainer], Tensor],
    value: float,
    recipe: Recipe,
    unbroken: dict[Recipe, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    save = trainer.CompressTrainer._save_checkpoint

    def spoil(self: trainer.CompressTrainer, *args: Any, **kwargs: Any) -> None:
        if self.state.global_step == 6:
            place(self).view(-1)[0] = value
        save(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(trainer.CompressTrainer, "_save_checkpoint", spoil)
        with pytest.raises(InputError, match=r"after step 6, .* holds NaN or Inf: .*lower --lr") as caught:
            compress(recipe)
    assert LAYER in str(caught.value)
    assert "the checkpoint of step 3 stays, and the same command continues from it" in str(caught.value)
    last = RunFolder(str(recipe.out)).last_checkpoint()
    assert last is not None and last[1].step == 3
    if place is weight and value != value:
        check_goes_on(recipe, unbroken, tmp_path)


def spoil_gradient(step: int, value: float, patch: pytest.MonkeyPatch) -> None:
    """In the backward pass of so-many-th step: the layer's output gets a gradient of `value`s."""
    original = transformers.Trainer.training_step

    def spoilt(self: Any, model: Any, *args: Any, **kwargs: Any) -> Any:
        layer = self.model.get_submodule(LAYER)
        handle = layer.register_forward_hook(
            lambda module, given, output: output.register_hook(lambda gradient: gradient * value) and None
        )
        try:
            return original(self, model, *args, **kwargs)
        finally:
            handle.remove()

    def step_by_step(self: Any, *args: Any, **kwargs: Any) -> Any:
        return (spoilt if self.state.global_step + 1 == step else original)(self, *args, **kwargs)

    patch.setattr(transformers.Trainer, "training_step", step_by_step)


@pytest.mark.parametrize("step", [5, 6])
def test_a_gradient_that_is_none(
    step: int, recipe: Recipe, unbroken: dict[Recipe, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the step before one that is saved, and in that one: the weights are not touched."""
    with monkeypatch.context() as patch:
        spoil_gradient(step, float("nan"), patch)
        with pytest.raises(InputError, match=f"gradient of '{re.escape(LAYER)}.* at step {step} is not finite"):
            compress(recipe)
    if step == 6:
        check_goes_on(recipe, unbroken, tmp_path)


def test_a_finite_gradient_whose_norm_overflows(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clipping makes zeros of it."""
    original = transformers.Trainer.training_step

    def large(self: Any, *args: Any, **kwargs: Any) -> Any:
        loss = original(self, *args, **kwargs)
        if self.state.global_step == 4:
            next(p for p in self.model.parameters() if p.grad is not None).grad.fill_(1e30)
        return loss

    monkeypatch.setattr(transformers.Trainer, "training_step", large)
    assert compress(recipe).steps == 9


def test_before_the_first_checkpoint_nothing_is_left(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil_gradient(2, float("inf"), monkeypatch)
    with pytest.raises(InputError, match="at step 2 is not finite") as caught:
        compress(recipe)
    assert "stays" not in str(caught.value)
    assert not Path(str(recipe.out)).exists()
    assert torch.is_grad_enabled()


def test_a_loss_that_is_too_large_itself(make_recipe: Callable[..., Recipe]) -> None:
    """No layer is named, and no lower rate is advised: the first step fails already."""
    with pytest.raises(InputError, match=r"though every layer's output is: .* lower --temperature or --hidden-loss"):
        compress(make_recipe(methods="kd", temperature=1e30, epochs=1))
