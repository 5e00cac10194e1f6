"""What a run tells at its start: the plan is what is then done."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from sparseq import checkpoint
from sparseq.nn import convert, named_layers
from sparseq.train import Recipe, RunResult, compress
from sparseq.train.folder import METRICS
from sparseq.train.plan import EMBEDDINGS, DryRun, _pruning, dry_run
from sparseq.train.progress import Reporter
from tests.conftest import write_rows

QUIET = Reporter(silent=True)


@pytest.mark.parametrize(
    "changes",
    [
        {"methods": "none", "epochs": 1.5},
        {"max_train_rows": 17, "epochs": 2, "pattern": "unstructured"},
        {"pattern": "64x32", "on_mismatch": "skip"},
        {"prune_embeddings": True, "pattern": "1x4"},
        {"methods": "qat", "bits": 4, "scale": "lsq", "activation": "static"},
        {"methods": "qat", "embedding_bits": 4},
    ],
    ids=str,
)
def test_the_plan_is_what_is_done(changes: dict[str, Any], make_recipe: Callable[..., Recipe]) -> None:
    recipe = make_recipe(**{"epochs": 1, **changes})
    planned = dry_run(recipe, reporter=QUIET)
    assert not Path(str(recipe.out)).exists()
    result = compress(recipe, reporter=QUIET)
    assert planned.plan.steps == result.steps and planned.plan.rows == result.rows
    assert planned.plan.teacher_score == result.teacher_score
    assert planned.plan.embedding_bits == result.embedding_bits
    assert (planned.parameters, planned.nonzero, planned.paper_bytes) == (
        result.parameters, result.nonzero, result.paper_bytes,
    )  # fmt: skip
    # which blocks go decides how a sparse weight is stored
    assert planned.stored_bytes == pytest.approx(result.stored_bytes, rel=0.05)
    model = checkpoint.load(result.out)
    kept = {name: layer.weight_counts() for name, layer in named_layers(model)}
    pruned = {name for name, counts in kept.items() if counts.kept < counts.total}
    assert pruned <= set(planned.plan.pruned) and bool(pruned) is recipe.uses("mp")  # a layer may keep all it has
    assert {name for name, counts in kept.items() if counts.bits < 32} == set(planned.plan.quantized)
    left = {name for names in planned.plan.left_out.values() for name in names}
    assert left == (set(kept) - set(planned.plan.pruned) if recipe.uses("mp") else set())


def told(recipe: Recipe, capsys: pytest.CaptureFixture[str]) -> tuple[DryRun, str]:
    """The dry run, and what it said with every run of blanks as one."""
    found = dry_run(recipe, reporter=Reporter())
    lines = capsys.readouterr().err.splitlines()
    assert all(len(line) <= 80 or " " not in line.strip() for line in found.plan.lines)
    assert set(found.plan.lines) <= set(lines)
    return found, " ".join(" ".join(found.plan.lines).split())


def test_everything_that_was_understood_is_said(
    make_recipe: Callable[..., Recipe], capsys: pytest.CaptureFixture[str]
) -> None:
    found, said = told(make_recipe(max_length=8, qat_start=3), capsys)
    assert "66 training rows" in said and "40 validation rows" in said
    assert "2 classes: 0, 1" in said
    assert f"{found.plan.texts_cut} texts cut at 8 tokens" in said and found.plan.texts_cut > 0
    assert f"it scores {found.plan.teacher_score:.4f} on the validation rows" in said
    assert "12 linear layers, 16,384 weights, to 60% in pattern 4x4" in said
    assert f"not 3 embeddings: {EMBEDDINGS}" in said
    assert "not bert.pooler.dense, classifier: outside the encoder's blocks" in said
    assert "17 layers to 8 bits, from step 3 on" in said
    _, other = told(make_recipe(embedding_bits=4), capsys)
    assert "17 layers to 8 bits, embeddings to 4: linear layers and embeddings" in other
    assert "18 steps of 8 rows (2 epochs of 66 rows) at lr 0.001" in said


def test_layers_that_the_pattern_does_not_divide_are_named(
    make_recipe: Callable[..., Recipe], capsys: pytest.CaptureFixture[str]
) -> None:
    found, said = told(make_recipe(pattern="64x32", on_mismatch="skip", methods="mp"), capsys)
    assert set(found.plan.pruned) == {f"bert.encoder.layer.{i}.intermediate.dense" for i in range(2)}
    assert "and 6 more: pattern 64x32 does not divide them" in said


def test_regression_and_layers_without_a_quantized_form(
    make_recipe: Callable[..., Recipe], capsys: pytest.CaptureFixture[str], tiny_regression_csv: tuple[Path, Path]
) -> None:
    files = {"train_file": str(tiny_regression_csv[0]), "validation_file": str(tiny_regression_csv[1])}
    _, said = told(make_recipe(methods="qat", text_columns="sentence1,sentence2", **files), capsys)
    assert "regression, 0.5 to 5" in said and "pairs of texts" in said
    blocks = [nn.ModuleDict({"dense": nn.Linear(8, 8), "conv": nn.Conv1d(8, 8, 1)}) for _ in range(2)]
    model = convert(nn.ModuleList(blocks), exclude=(nn.Conv1d,), bits=None)
    pruned, left = _pruning(make_recipe(), model)
    assert pruned == ["0.dense", "1.dense"]
    assert any("2 Conv1d" in why for why in left)


def test_the_teachers_score_is_kept_and_old_folders_load(make_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    teacher = compress(make_recipe(methods="none", epochs=3, out=str(tmp_path / "teacher")), reporter=QUIET)
    assert teacher.teacher_score is None
    result = compress(make_recipe(teacher=teacher.out, epochs=1), reporter=QUIET)
    assert result.teacher_score == teacher.score
    metrics = Path(result.out) / METRICS
    values = json.loads(metrics.read_text())
    assert values["teacher_score"] == teacher.score
    del values["teacher_score"]
    metrics.write_text(json.dumps(values))
    assert RunResult.from_folder(result.out).teacher_score is None


def test_names_that_act_on_a_terminal_do_not(
    make_recipe: Callable[..., Recipe], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    rows = [{"sentence": "good film", "label": "a\x1b[31mb\u202e"}, {"sentence": "bad film", "label": "c"}] * 8
    file = str(write_rows(tmp_path / "odd\x1b[2J.csv", rows))
    dry_run(make_recipe(methods="qat", train_file=file, validation_file=file), reporter=Reporter())
    said = capsys.readouterr().err
    assert "\x1b" not in said and "\u202e" not in said and "\\x1b[31m" in said
