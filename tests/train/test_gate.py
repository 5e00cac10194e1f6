"""The limit on the drop in score: what is compared, by how much, and what that means for the run."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparseq.checkpoint import read_metadata
from sparseq.cli import main
from sparseq.errors import InputError
from sparseq.study.keys import key_of
from sparseq.tasks import GLUE
from sparseq.tasks.paired_scores import score_difference_error
from sparseq.train import Recipe, RunResult, compress, evaluate, run
from sparseq.train.folder import METRICS
from sparseq.train.gate import Drop, compared_model
from sparseq.train.plan import dry_run

FEW = {"methods": "qat", "epochs": 0.2}


def flags(recipe: Recipe, **more: Any) -> list[str]:
    settings = {f.name: getattr(recipe, f.name) for f in dataclasses.fields(recipe)}
    changed = {name: value for name, value in settings.items() if value != getattr(Recipe(), name)} | more
    return ["compress", "--quiet"] + [
        part
        for name, value in changed.items()
        for part in (
            "--" + name.replace("_", "-"),
            ",".join(value) or "none" if isinstance(value, tuple) else str(value),
        )
    ]


def never(*args: Any, **kwargs: Any) -> Any:
    raise AssertionError("the run trains again")


def test_what_is_compared() -> None:
    with_teacher = Recipe(model="small", teacher="base", max_drop=1.0)
    assert compared_model(with_teacher) == "base"
    assert compared_model(with_teacher.replace(baseline="other")) == "other"
    assert compared_model(with_teacher.replace(max_drop=None)) is None
    alone = with_teacher.replace(methods="qat")
    assert compared_model(alone.replace(methods="ptq", epochs=0)) == "small"
    with pytest.raises(InputError, match="--max-drop has nothing to compare the score with"):
        alone.replace(task="sst2", out="out").validate()


def test_the_limit_is_no_part_of_a_run(make_recipe: Callable[..., Recipe], tiny_teacher_dir: Path) -> None:
    recipe = make_recipe(**FEW)
    limited = recipe.replace(max_drop=0.5, baseline=str(tiny_teacher_dir))
    assert recipe.differences(limited) == [] and key_of(recipe) == key_of(limited)


def test_a_drop_and_its_limit() -> None:
    drop = Drop("runs/teacher", "", 0.9, 0.5, 0.4)
    assert drop.passed is None and drop.limited(None).passed is None
    assert drop.limited(0.5).passed and not drop.limited(0.49).passed
    assert dataclasses.replace(drop, points=0.5000000001).limited(0.5).passed
    assert drop.limited(0.1).refusal() == (
        "the score is 0.50 points below that of runs/teacher (0.9000), standard error 0.40, which may be chance; "
        "--max-drop allows 0.1"
    )
    assert "chance" not in dataclasses.replace(drop, standard_error=0.2).described()
    assert "0.50 points above" in dataclasses.replace(drop, points=-0.5).described()


def test_the_standard_error_of_accuracies_and_of_other_scores() -> None:
    draw = np.random.default_rng(1)
    labels = {"validation": draw.integers(0, 2, 300)}
    first, second = ({"validation": draw.normal(size=(300, 2))} for _ in range(2))
    right = [one["validation"].argmax(1) == labels["validation"] for one in (first, second)]
    differences = right[0].astype(float) - right[1].astype(float)
    exact = score_difference_error(GLUE["sst2"], first, second, labels)
    assert exact == pytest.approx(differences.std() / np.sqrt(300))
    # the same rows by the bootstrap: a score that is an accuracy under another name
    again = dataclasses.replace(GLUE["sst2"], score_metrics=("accuracy", "accuracy"))
    assert score_difference_error(again, first, second, labels) == pytest.approx(exact, rel=0.2)
    assert score_difference_error(again, first, first, labels) == 0
    two = {"validation_matched": labels["validation"][:200], "validation_mismatched": labels["validation"][200:]}
    logits = [
        {"validation_matched": one["validation"][:200], "validation_mismatched": one["validation"][200:]}
        for one in (first, second)
    ]
    mnli = dataclasses.replace(GLUE["mnli"], num_labels=2, label_names=None)
    expected = np.hypot(differences[:200].std() / np.sqrt(200), differences[200:].std() / np.sqrt(100)) / 2
    assert score_difference_error(mnli, *logits, two) == pytest.approx(expected)


def test_a_run_with_a_baseline(
    make_recipe: Callable[..., Recipe],
    tiny_teacher_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plain = compress(make_recipe(**FEW, out=str(tmp_path / "plain")))
    recipe = make_recipe(**FEW, baseline=str(tiny_teacher_dir))
    result = compress(recipe)
    assert plain.drop is None and read_metadata(plain.out)["sha256"] == read_metadata(result.out)["sha256"]
    drop = result.drop
    assert drop is not None and drop.passed is None and drop.baseline == str(tiny_teacher_dir)
    assert drop.points == pytest.approx(100 * (drop.baseline_score - result.score))
    monkeypatch.setattr(run, "train_student", never)
    # a model far above, so that the drop is too large whatever the tiny models do
    rigged = dataclasses.replace(drop, points=7.25)
    run.RunFolder(result.out).finish(dataclasses.replace(result, drop=rigged).as_dict())
    capsys.readouterr()
    assert main(flags(recipe, max_drop=0.5)) == 3
    (sentence,) = capsys.readouterr().err.splitlines()
    assert "7.25 points below" in sentence and sentence.endswith("--max-drop allows 0.5")
    stored = json.loads((Path(result.out) / METRICS).read_text())["drop"]
    assert stored["passed"] is False and stored["limit"] == 0.5 and stored["points"] == 7.25
    assert compress(recipe.replace(max_drop=8)).drop == rigged.limited(8)
    # what was not compared before is compared now, without training
    assert compress(recipe.replace(out=plain.out, max_drop=100)).drop == drop.limited(100)
    assert RunResult.from_folder(plain.out).drop == drop.limited(100)


def test_a_table_says_on_which_side_of_the_baseline_the_score_is(
    make_recipe: Callable[..., Recipe], tiny_teacher_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = make_recipe(**FEW, baseline=str(tiny_teacher_dir))
    drop = compress(recipe).drop
    assert drop is not None
    assert main(["evaluate", recipe.out, "--baseline", str(tiny_teacher_dir)]) == 0
    printed = capsys.readouterr().out
    assert f"points {drop.side} the baseline\t{abs(drop.points):.2f}\n" in printed
    for points, side in ((0.5, "below"), (-9.5, "above")):
        assert dataclasses.replace(drop, points=points).side == side


def test_a_teacher_and_a_model_as_it_is_are_compared_with(make_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    taught = compress(make_recipe(epochs=0.2, max_drop=100))
    assert taught.drop is not None and taught.drop.baseline_score == taught.teacher_score and taught.drop.passed
    packed = compress(make_recipe(methods="ptq", epochs=0, max_drop=100, out=str(tmp_path / "packed")))
    assert packed.drop is not None and packed.drop.points == pytest.approx(
        100 * (packed.drop.baseline_score - packed.score)
    )
    assert evaluate(packed.out, baseline=str(packed.drop.baseline))["drop"] == dataclasses.asdict(
        packed.drop.limited(None)
    )
    assert main(["evaluate", packed.out, "--max-drop", "100", "--json"]) == 0


def test_a_baseline_is_checked_before_training(
    make_recipe: Callable[..., Recipe], make_model: Callable[..., Path], tmp_path: Path
) -> None:
    three = make_model("three", num_labels=3)
    for check in (dry_run, compress):
        with pytest.raises(InputError, match=r"the baseline .* cannot be used: .* 3 labels, but the task has 2"):
            check(make_recipe(**FEW, baseline=str(three)))
        with pytest.raises(InputError, match="there is no folder"):
            check(make_recipe(**FEW, max_drop=1, baseline=str(tmp_path / "none")))
    assert not (tmp_path / "out").exists()
    found = dry_run(make_recipe(epochs=0.2, max_drop=0.5))
    assert "at most 0.5 points may be lost" in " ".join(" ".join(found.plan.lines).split())
