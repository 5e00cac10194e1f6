"""Whole runs: every subset of the methods, every setting that changes what is trained, and what a run leaves behind."""

import json
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch

import sparseq
from sparseq.checkpoint import read_metadata
from sparseq.errors import InputError
from sparseq.nn import PackedEmbedding, PackedLinear, named_layers
from sparseq.train import METHODS, Recipe, RunResult, compress, evaluate, predict
from sparseq.train.folder import RunFolder

SUBSETS = [subset for count in range(4) for subset in combinations(METHODS, count)]


@pytest.mark.parametrize("epochs", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("methods", SUBSETS, ids=lambda m: "+".join(m) or "none")
def test_every_subset_of_the_methods(methods: tuple[str, ...], epochs: int, make_recipe: Callable[..., Recipe]) -> None:
    precision = "bf16" if len(methods) % 2 else "fp32"
    recipe = make_recipe(methods=methods, epochs=epochs, prune_updates=3, precision=precision)
    result = compress(recipe)
    model = sparseq.load(result.out)
    kinds = {type(layer) for _, layer in named_layers(model)}
    assert kinds == ({PackedLinear, PackedEmbedding} if "qat" in methods or "mp" in methods else set())
    bits = {layer.weight_counts().bits for _, layer in named_layers(model)}
    assert bits == ({8} if "qat" in methods else {32} if "mp" in methods else set())
    assert result.bits == (8 if "qat" in methods else None)
    assert result.sparsity == (0.6 if "mp" in methods else None)
    weights = 2 * (4 * 32 * 32 + 2 * 32 * 64)
    removed = round(0.6 * weights / 16) * 16 if "mp" in methods else 0
    assert result.sparsity_reached == removed / weights
    assert result.parameters - result.nonzero == removed
    assert result.paper_bytes == result.nonzero * (1 if "qat" in methods else 4)
    assert abs(result.stored_bytes / (Path(result.out) / "model.safetensors").stat().st_size - 1) < 0.01
    assert result.steps == 9 * epochs
    assert result.score == result.score_before_packing  # a label that changed on packing would show as 1/40


def test_the_folder_of_a_finished_run(make_recipe: Callable[..., Recipe]) -> None:
    recipe = make_recipe()
    result = compress(recipe)
    folder = Path(result.out)
    assert {path.name for path in folder.iterdir()} == {
        "model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", "recipe.toml", "metrics.json",
        "training.csv",
    }  # fmt: skip
    assert Recipe.from_file(folder / "recipe.toml").differences(recipe.validate().resolved()) == []
    metrics = json.loads((folder / "metrics.json").read_text())
    assert {
        "task", "methods", "seed", "sparsity", "pattern", "bits", "metrics", "score", "parameters", "nonzero",
        "paper_bytes", "stored_bytes", "versions", "seconds", "rows",
    } <= set(metrics)  # fmt: skip
    assert metrics["rows"] == {"train": 66, "validation": 40}
    assert RunResult.from_folder(folder) == result
    # the same again returns at once what is there
    before = (folder / "metrics.json").stat().st_mtime_ns
    assert compress(recipe) == result
    assert (folder / "metrics.json").stat().st_mtime_ns == before


@pytest.mark.processor
def test_evaluate_and_predict_agree_with_the_run(
    make_recipe: Callable[..., Recipe], tiny_csv: tuple[Path, Path]
) -> None:
    result = compress(make_recipe())
    found = evaluate(result.out)
    assert found["metrics"] == result.metrics
    assert found["score"] == result.score
    assert found["rows"] == {"validation": 40}
    assert sum(result.right_answers()) / 40 == pytest.approx(result.score)
    other = evaluate(result.out, validation_file=str(tiny_csv[0]))
    assert other["rows"] == {"validation": 66}
    texts = [("the film was good",), ("awful",), ("the film was good",)]
    predictions = predict(result.out, texts)
    assert [p.text for p in predictions] == texts
    assert predictions[0] == predictions[2]
    assert all(p.label in ("0", "1") and 0.5 <= p.value <= 1 for p in predictions)
    assert predict(result.out, []) == []


# Settings that other tests run with: test_precision, test_plan.
SELDOM: list[dict[str, Any]] = [
    {"bits": 4},
    {"bits": 16},
    {"bits": 8, "embedding_bits": 16},
    {"activation": "static"},
    {"prune_embeddings": True, "pattern": "1x4"},
    {"pattern": "64x32", "on_mismatch": "skip"},
    {"hidden_loss": 1.0},
    {"qat_start": 1000},
    {"max_train_rows": 20, "max_validation_rows": 10},
]


@pytest.mark.parametrize(
    "changes",
    [
        {"activation": "static", "calibration": "max"},
        {"activation": "static", "calibration": "percentile", "qat_start": 3},
        {"activation": "static", "calibration": "mse", "qat_start": 1000},
        {"criterion": "magnitude", "scope": "lamp", "pattern": "unstructured", "lr": "auto"},
        {"criterion": "magnitude"},
        {"scope": "global", "max_layer_sparsity": 0.7},
        {"scope": "normalized"},
        {"scale": "lsq", "qat_start": 5},
        {"activation": "static", "scale": "lsq", "qat_start": 3},
        {"qat_start": 1000, "activation": "static", "scale": "lsq"},
        {"pattern": "2:4", "sparsity": 0.5},
        {"pattern": "unstructured", "scope": "layer", "schedule": "cubic", "regrow": True},
        {"prune_warmup": 0, "prune_end": 0},
        {"prune_end": 1.0},
        {"kd_loss": "mse", "kd_alpha": 1.0},
        {"embedding_bits": 4, "scale": "lsq"},
        {"layers": 1},
        {"layers": (1, 0)},
        {"epochs": 1.5, "lr_warmup": 0},
        {"precision": "bf16", "epochs": 3},
        *(pytest.param(changes, marks=pytest.mark.slow) for changes in SELDOM),
    ],
    ids=str,
)
def test_settings_run(changes: dict[str, Any], make_recipe: Callable[..., Recipe]) -> None:
    precision = "bf16" if len(str(changes)) % 2 else "fp32"  # about half of them in each
    recipe = make_recipe(**{"epochs": 1, "precision": precision, **changes})
    result = compress(recipe)
    assert result.score == result.score_before_packing
    if recipe.on_mismatch != "skip":
        assert result.sparsity_reached == pytest.approx(recipe.sparsity, abs=16 / 16384)
    if recipe.layers is not None:
        assert sparseq.load(result.out).config.num_hidden_layers == (1 if recipe.layers == 1 else 2)
    assert result.bits == recipe.bits and result.embedding_bits == (recipe.embedding_bits or recipe.bits)
    widths = {layer.bits for _, layer in named_layers(sparseq.load(result.out)) if isinstance(layer, PackedEmbedding)}
    assert widths == {result.embedding_bits}


def test_what_pruning_did_to_each_layer_and_the_rate_are_recorded(
    make_recipe: Callable[..., Recipe], capsys: pytest.CaptureFixture[str]
) -> None:
    from sparseq.train.summary import show_result

    recipe = make_recipe(methods="mp", epochs=1, lr="auto", scope="layer", pattern="unstructured", sparsity=0.96)
    result = compress(recipe)
    assert result.lr == 3e-4  # a hidden size of 32
    assert len(result.layers_past_95) == 12 and all(0.95 < s < 0.97 for s in result.layers_past_95.values())
    assert RunResult.from_folder(result.out) == result
    show_result(result)
    said = capsys.readouterr()
    assert "at lr 0.0003 (by the hidden size 32; or --lr)" in " ".join(said.err.split())
    assert "layers of which more than 95% is removed: bert.encoder.layer.0" in said.out


@pytest.mark.parametrize("calibration", ["max", "average", "percentile", "mse"])
def test_what_static_ranges_follow_is_set_before_the_first_step_and_after_a_pause(calibration: str) -> None:
    from types import SimpleNamespace

    from torch import nn

    from sparseq import convert
    from sparseq.hf import QATCallback

    torch.manual_seed(0)
    model = convert(nn.Sequential(nn.Linear(4, 4)), activation="static")
    for step in (0, 7):
        start = QATCallback(calibration=calibration, batches=[{"input": torch.ones(2, 4)}], model=model)
        state: Any = SimpleNamespace(global_step=step, max_steps=8)
        start.on_train_begin(None, state, None)  # type: ignore[arg-type]
        assert model[0].range_follows == calibration
        model[0].range_follows = "nothing"


def test_training_learns(make_recipe: Callable[..., Recipe]) -> None:
    assert compress(make_recipe(methods="none", epochs=30, lr=3e-3)).score > 0.9


def test_a_plain_run_is_a_teacher_and_a_student(make_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    teacher = compress(make_recipe(methods=(), epochs=1, out=str(tmp_path / "teacher")))
    student = compress(make_recipe(model=teacher.out, teacher=teacher.out, layers=1, out=str(tmp_path / "student")))
    assert student.parameters < teacher.parameters
    again = compress(make_recipe(teacher=student.out, out=str(tmp_path / "again")))  # a packed teacher does too
    assert again.score >= 0


def test_regression_with_a_teacher(
    make_recipe: Callable[..., Recipe], make_model: Callable[..., Path], tiny_regression_csv: tuple[Path, Path]
) -> None:
    teacher = make_model("regression", num_labels=1, problem_type="regression")
    result = compress(
        make_recipe(
            teacher=str(teacher),
            train_file=str(tiny_regression_csv[0]),
            validation_file=str(tiny_regression_csv[1]),
            text_columns="sentence1,sentence2",
            hidden_loss=0.5,
        )
    )
    assert set(result.metrics) == {"pearson", "spearman"}
    assert evaluate(result.out)["metrics"] == result.metrics
    assert isinstance(predict(result.out, [("good", "bad")])[0].value, float)
    with pytest.raises(InputError, match="predicts a number, which is never simply right"):
        result.right_answers()
    with pytest.raises(InputError, match="reads a pair of texts"):
        predict(result.out, [("good",)])


def test_the_teachers_logits_are_computed_once(
    make_recipe: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPARSEQ_CACHE", str(tmp_path / "cache"))

    def kept() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cache" / "logits").iterdir()}

    first = compress(make_recipe(methods="kd", out=str(tmp_path / "first")))
    cached = kept()
    assert len(cached) == 2  # on the training rows, and on the validation rows for its score
    second = compress(make_recipe(methods="kd", out=str(tmp_path / "second")))
    assert kept() == cached
    assert first.metrics == second.metrics and first.teacher_score == second.teacher_score
    compress(make_recipe(methods="kd", out=str(tmp_path / "third"), max_train_rows=20))
    assert len(kept()) == 3


def test_kd_pulls_the_student_towards_the_teacher(make_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    """With alpha 1 the labels count for nothing: what the student knows, it has from the teacher's logits."""
    recipe = make_recipe(methods="none", epochs=10, lr=3e-3, out=str(tmp_path / "teacher"))
    teacher = compress(recipe)
    student = compress(
        make_recipe(
            model=recipe.model, teacher=teacher.out, methods="kd", kd_alpha=1.0, kd_loss="mse", epochs=10, lr=3e-3,
            out=str(tmp_path / "student"),
        )
    )  # fmt: skip
    assert abs(student.score - teacher.score) <= 0.1


@pytest.mark.processor
def test_same_seed_same_weights_other_seed_other_weights(make_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    def weights(seed: int, name: str) -> str:
        return read_metadata(compress(make_recipe(seed=seed, epochs=1, out=str(tmp_path / name))).out)["sha256"]

    torch.manual_seed(5)
    first = weights(0, "first")
    torch.manual_seed(6)
    assert weights(0, "second") == first
    assert weights(1, "third") != first


def test_the_folder_works_from_elsewhere(
    make_recipe: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_csv: tuple[Path, Path]
) -> None:
    monkeypatch.chdir(tiny_csv[0].parent)
    result = compress(make_recipe(train_file="train.csv", validation_file="validation.csv", epochs=1))
    monkeypatch.chdir(tmp_path)
    assert evaluate("out")["metrics"] == result.metrics
    assert RunFolder("out").metrics()["score"] == result.score
