"""Runs on rows and by metrics that a program gives, and weights of classes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from sparseq.checkpoint import read_metadata
from sparseq.cli import main
from sparseq.distill import distillation_loss, label_loss
from sparseq.errors import InputError
from sparseq.tasks import load_data
from sparseq.train import Recipe, compress, evaluate
from sparseq.train.class_weights import class_weights
from sparseq.train.given import named_function
from sparseq.train.prepare import prepare

FEW = {"methods": "qat", "epochs": 0.2}


def share_of_ones(labels: np.ndarray, predictions: np.ndarray) -> float:
    """A score for the tests."""
    return float(np.mean(predictions == 1))


def other_score(labels: np.ndarray, predictions: np.ndarray) -> float:
    return 0.25


def test_rows_of_a_program_make_the_same_model(
    make_recipe: Callable[..., Recipe], tiny_csv: tuple[Path, Path], tmp_path: Path
) -> None:
    from_files = compress(make_recipe(**FEW))
    recipe = make_recipe(**FEW, train_file=None, validation_file=None, out=str(tmp_path / "rows"))
    rows = {name: pd.read_csv(path) for name, path in zip(("train", "validation"), tiny_csv, strict=True)}
    with pytest.raises(InputError, match="no task given"):
        compress(recipe)
    result = compress(recipe, **rows, metric=share_of_ones)
    assert read_metadata(result.out)["sha256"] == read_metadata(from_files.out)["sha256"]
    assert result.score == result.metrics["share_of_ones"] and result.metrics["accuracy"] == from_files.score
    assert compress(recipe, **rows, metric=share_of_ones).finished_before
    for changed, what in (
        ({**rows, "metric": other_score}, "metric"),
        (rows, "metric"),
        ({**rows, "validation": rows["train"], "metric": share_of_ones}, "validation data"),
    ):
        with pytest.raises(InputError, match=f"the {what} has changed"):
            compress(recipe, **changed)
    assert evaluate(result.out, validation=rows["validation"], metric=share_of_ones)["score"] == result.score
    with pytest.raises(InputError, match="give --validation-file"):
        evaluate(result.out, metric=share_of_ones)


def failing(labels: np.ndarray, predictions: np.ndarray) -> float:
    raise KeyError("x")


def test_a_metric_fails_before_training(make_recipe: Callable[..., Recipe]) -> None:
    recipe = make_recipe(**FEW)
    with pytest.raises(InputError, match=r"the metric 'failing' failed \(KeyError"):
        compress(recipe, metric=failing)
    assert not Path(str(recipe.out)).exists()


def test_a_metric_of_the_command_line(
    run_flags: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_scores.py").write_text("def half(labels, predictions):\n    return 0.5\nnumber = 3\n")
    assert named_function("own_scores:half")([0], [1]) == 0.5
    from sklearn.metrics import balanced_accuracy_score

    assert named_function("sklearn.metrics:balanced_accuracy_score") is balanced_accuracy_score
    (tmp_path / "failing.py").write_text("1 / 0\n")
    for name, sentence in (
        ("own_scores", "wants MODULE:FUNCTION"),
        ("nowhere_at_all:f", "cannot be imported"),
        ("failing:f", "ZeroDivisionError"),
        ("own_scores:number", "has no function"),
        ("own_scores:missing", "has no function"),
    ):
        with pytest.raises(InputError, match=sentence):
            named_function(name)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('metric = "own_scores:half"\n')
    flags = [str(part) for flag in {**run_flags, "--methods": "qat", "--epochs": 0.2}.items() for part in flag]
    assert main(["compress", "--recipe", str(recipe), *flags]) == 2  # a file that is found must run nothing
    assert "unknown setting" in capsys.readouterr().err
    assert main(["compress", "--metric", "own_scores:half", "--json", "--quiet", *flags]) == 0
    assert json.loads(capsys.readouterr().out)["score"] == 0.5


def test_losses_with_class_weights_are_torchs() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(9, 3, generator=generator) for _ in range(2))
    labels = torch.tensor([0, 1, 2, 2, 1, 0, 0, 0, 1])
    weights = torch.tensor([0.5, 3.0, 1.25])
    exact = F.cross_entropy(student.double(), labels, weights.double())
    assert label_loss(student, labels, regression=False, class_weights=weights).item() == pytest.approx(exact.item())
    soft = distillation_loss(student, teacher, labels, alpha=1.0)
    both = distillation_loss(student, teacher, labels, alpha=0.3, class_weights=weights)
    assert both.item() == pytest.approx(0.3 * soft.item() + 0.7 * exact.item())
    each = distillation_loss(student, teacher, labels, alpha=torch.full((9,), 0.3), class_weights=weights)
    assert each.item() == pytest.approx(both.item())
    alpha = torch.tensor([1.0, 0.3, 0.3, 1.0, 0.0, 0.0, 0.3, 0.3, 0.3])
    labels[0] = -100
    rows = [(3.0 if y == 1 else 0.5 if y == 0 else 1.25 if y == 2 else 0.0) for y in labels.tolist()]
    losses = F.cross_entropy(student.double(), labels, reduction="none")
    label_part = sum(w * (1 - a) * loss for w, a, loss in zip(rows, alpha.tolist(), losses.tolist(), strict=True))
    logs = [torch.log_softmax(one.double() / 2, -1) for one in (student, teacher)]
    divergences = 4 * (logs[1].exp() * (logs[1] - logs[0])).sum(-1)
    expected = label_part / sum(rows) + (alpha.double() * divergences).mean().item()
    found = distillation_loss(student, teacher, labels, alpha=alpha, class_weights=weights)
    assert found.item() == pytest.approx(expected)


def test_weights_of_classes() -> None:
    rows = {"text": list("abcdef"), "label": ["a", "b", "a", "a", "a", "c"]}
    data = load_data("custom", train=rows, validation=rows)
    assert class_weights((), data) is None
    from sklearn.utils.class_weight import compute_class_weight

    balanced = compute_class_weight("balanced", classes=np.arange(3), y=np.array([0, 1, 0, 0, 0, 2]))
    assert class_weights(("balanced",), data) == pytest.approx(balanced.tolist())
    assert class_weights(("c=2.5", "a = 0.5"), data) == (0.5, 1.0, 2.5)
    with pytest.raises(InputError, match="'d', which is none of the task's classes: a, b, c"):
        class_weights(("d=1",), data)
    numbers = load_data("custom", train={"text": ["a", "b"], "label": [0.5, 1]}, validation=rows | {"label": [1.0] * 6})
    with pytest.raises(InputError, match="this task predicts a number"):
        class_weights(("balanced",), numbers)


def test_class_weights_are_settings_of_a_run(make_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    for wrong in ("heavy", "0=x", "0=-1", "0=0", "=2", "0=1,0=2", "balanced,0=1", "0=inf"):
        with pytest.raises(InputError, match="--class-weights wants none, balanced"):
            make_recipe(class_weights=wrong).validate()
    with pytest.raises(InputError, match="with --kd-alpha 1 there is none"):
        make_recipe(class_weights="balanced", kd_alpha=1).validate()
    recipe = make_recipe(class_weights="0=1,1=3")
    (tmp_path / "recipe.toml").write_text(recipe.to_toml())
    assert Recipe.from_file(tmp_path / "recipe.toml").class_weights == ("0=1", "1=3") == recipe.class_weights
    assert recipe.differences(make_recipe()) == ["class_weights"] and make_recipe(class_weights="none") == make_recipe()
    assert prepare(recipe.resolved()).class_weights == (1.0, 3.0)


@pytest.mark.parametrize(
    ("heavy", "methods", "share"), [("1=1000", "qat", 1.0), ("0=1000", "qat,kd", 0.0)], ids=["labels", "with kd"]
)
def test_a_class_that_weighs_much_is_predicted(
    heavy: str, methods: str, share: float, make_recipe: Callable[..., Recipe]
) -> None:
    recipe = make_recipe(epochs=0.5, methods=methods, kd_alpha=0.1, class_weights=heavy)
    assert compress(recipe, metric=share_of_ones).score == share
