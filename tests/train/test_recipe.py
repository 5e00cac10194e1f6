"""Recipes: their settings, defaults and choices, and what makes another run."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from recipes import full

from sparseq.errors import InputError
from sparseq.train import Recipe
from sparseq.train.recipe import PATH_SETTINGS


@pytest.mark.parametrize("methods", ["none", ["none"], [], ""])
def test_no_methods(methods: object) -> None:
    assert full(methods=methods).methods == ()


def test_methods() -> None:
    assert full(methods="kd, qat").methods == ("qat", "kd")
    assert full(methods="mp,mp").methods == ("mp",)
    assert full(methods="none").methods == full(methods=[]).methods == full(methods="").methods == ()
    assert full(methods="none", teacher=None).uses("kd") is False


def test_python_values_are_checked_like_a_files() -> None:
    with pytest.raises(InputError, match="--batch-size wants a whole number"):
        Recipe(model="tiny", task="sst2", out="out", teacher="t", batch_size=0).validate()
    with pytest.raises(InputError, match="no model given"):
        Recipe().validate()


def test_what_makes_another_run() -> None:
    assert full().differences(full(out="elsewhere", save_steps=7, eval_batch_size=3)) == []
    assert full().differences(full(seed=1, bits=4)) == ["bits", "seed"]


@pytest.mark.parametrize(
    ("changes", "criterion", "scope"),
    [
        ({}, "fisher", "global"),
        ({"pattern": "unstructured"}, "fisher", "global"),
        ({"scope": "layer"}, "fisher", "layer"),
        ({"scope": "lamp"}, "magnitude", "lamp"),
        ({"prune_embeddings": True}, "magnitude", "lamp"),
        ({"criterion": "magnitude"}, "magnitude", "lamp"),
        ({"criterion": "magnitude", "pattern": "64x64"}, "magnitude", "lamp"),
        ({"criterion": "magnitude", "pattern": "unstructured"}, "magnitude", "global"),
        ({"criterion": "magnitude", "pattern": "2:4", "sparsity": 0.5}, "magnitude", "global"),
        ({"criterion": "magnitude", "scope": "global"}, "magnitude", "global"),
        ({"prune_end": 0, "prune_warmup": 0}, "magnitude", "lamp"),  # no gradient is there before training
        ({"methods": "mp,ptq", "epochs": 0}, "magnitude", "lamp"),
        ({"methods": "qat"}, "auto", "auto"),
    ],
    ids=str,
)
def test_the_criterion_and_the_scope_of_a_run_are_resolved(changes: dict[str, Any], criterion: str, scope: str) -> None:
    resolved = full(**changes).validate().resolved()
    assert (resolved.criterion, resolved.scope) == (criterion, scope)


@pytest.mark.parametrize("changes", [{"prune_end": 0, "prune_warmup": 0}, {"methods": "mp,ptq", "epochs": 0}], ids=str)
def test_gradients_are_not_ranked_by_before_training(changes: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="pruning would end before training begins: raise --epochs and --prune-end"):
        full(criterion="fisher", **changes).validate()


def test_pruning_by_gradients_ends_after_the_first_step_at_the_earliest() -> None:
    short = full(prune_warmup=0, prune_end=0.3).resolved()
    assert short.pruning_steps(1) == (0, 1) and short.pruning_steps(10) == (0, 3) and short.pruning_steps(0) == (0, 0)
    assert full(prune_warmup=0, prune_end=0.3, criterion="magnitude").resolved().pruning_steps(1) == (0, 0)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"scope": "lamp"}, "scope 'lamp' is of magnitudes"),
        ({"prune_embeddings": True}, "prune embeddings by magnitude"),
    ],
)
def test_what_does_not_go_with_gradients_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        full(criterion="fisher", **changes).validate()


def test_choices_are_those_of_the_library() -> None:
    from sparseq.criterion import CRITERIA
    from sparseq.nn.ranges import METHODS
    from sparseq.nn.selection import MAX_LAYER_SPARSITY, SCOPES

    assert set(Recipe.settings()["scope"].choices) == set(SCOPES)
    assert Recipe.settings()["criterion"].choices == ("auto", *CRITERIA)
    assert Recipe.settings()["calibration"].choices == METHODS
    assert Recipe().max_layer_sparsity == MAX_LAYER_SPARSITY


def test_existing_paths_are_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    resolved = full(model="model", teacher="org/teacher").resolved()
    assert resolved.model == str(tmp_path / "model")
    assert resolved.teacher == "org/teacher"
    assert resolved.out == str(tmp_path / "out")


def test_every_setting_is_described_and_its_default_is_one_it_accepts() -> None:
    for field in dataclasses.fields(Recipe):
        described = field.metadata["setting"]
        assert described.help and described.group
        assert described.value(field.name, field.default) == field.default


def test_resolved_refuses_a_home_that_is_not_known(make_recipe: Callable[..., Recipe]) -> None:
    for name in PATH_SETTINGS:
        with pytest.raises(InputError, match="unknown home folder"):
            make_recipe(**{name: "~nosuchuser/x"}).resolved()
