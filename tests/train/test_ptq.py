"""Post-training quantization as a method: what is trained, what is quantized from which rows, what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from recipes import full
from test_resume import run_broken

import sparseq
from sparseq.checkpoint import read_metadata
from sparseq.errors import InputError
from sparseq.nn import PackedLinear, least_error_scale, named_layers
from sparseq.train import METHODS, Recipe, RunResult, calibrating, compress, run, trainer
from sparseq.train.calibrating import calibration_batches, random_texts
from sparseq.train.plan import dry_run
from sparseq.train.prepare import prepare
from sparseq.train.progress import Reporter
from sparseq.train.rows import tokenised_rows

QUIET = Reporter(silent=True)


@pytest.fixture(scope="session")
def trained_dir(tiny_teacher_dir: Path) -> Path:
    """A model with a head for two labels."""
    return tiny_teacher_dir


@pytest.fixture
def at_once(make_recipe: Callable[..., Recipe], trained_dir: Path) -> Callable[..., Recipe]:
    """A recipe that quantizes without training; keyword arguments change it."""

    def make(**changes: Any) -> Recipe:
        return make_recipe(**{"model": str(trained_dir), "methods": "ptq", "epochs": 0, **changes})

    return make


def digest(result: RunResult) -> str:
    found: str = read_metadata(result.out)["sha256"]
    return found


def weights(result: RunResult) -> dict[str, torch.Tensor]:
    """The dequantized weights of a run's linear layers."""
    found = {}
    for name, layer in named_layers(sparseq.load(result.out)):
        if isinstance(layer, PackedLinear):
            values = layer.quantized_values().float()
            found[name] = values if layer.scale is None else values * layer.scale.unsqueeze(-1)
    return found


def test_ptq_is_known_and_no_part_of_the_default() -> None:
    assert METHODS == ("qat", "kd", "mp") == Recipe().methods
    assert full(methods="ptq,mp,kd").methods == ("kd", "mp", "ptq")
    assert full(methods="ptq").quantizes and full(methods="qat").quantizes and not full(methods="kd,mp").quantizes


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"methods": "qat,ptq"}, "qat quantizes during training and ptq after it"),
    ({"methods": "ptq", "scale": "lsq"}, "--scale lsq learns weight scales in training"),
    ({"methods": "qat", "scale": "mse"}, "--scale mse fits scales to weights that no longer change"),
    ({"methods": "ptq", "qat_start": 3}, "--qat-start is a step of qat"),
    ({"methods": "qat", "smooth": 0.5}, "--smooth belongs to ptq"),
    ({"methods": "kd", "smooth": 0.5}, "--smooth belongs to ptq"),
    ({"methods": "mp", "epochs": 0}, "--epochs wants a number above 0, not '0'"),
    ({"methods": "none", "epochs": 0}, "--epochs wants a number above 0, not '0'"),
    ({"methods": "kd,ptq", "epochs": 0}, "kd has nothing to do"),
    ({"methods": "ptq", "smooth": 1.5}, "--smooth wants a number of at least 0 and at most 1"),
    ({"methods": "ptq", "calibration_rows": 0}, "--calibration-rows wants a whole number of at least 1"),
    ({"methods": "ptq", "calibration_data": "test"}, "--calibration-data wants one of train, random"),
]


@pytest.mark.parametrize(("changes", "sentence"), REFUSED, ids=lambda value: str(value))
def test_settings_that_contradict_each_other_are_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        full(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"bits": 4, "scale": "mse"},
        {"bits": 16},
        {"activation": "static", "calibration": "max", "smooth": 0.5},
        {"activation": "static", "calibration": "average", "calibration_data": "random"},
        {"activation": "static", "calibration": "percentile", "calibration_rows": 10},
        {"activation": "static", "calibration": "mse", "scale": "mse"},
        {"smooth": 0.5, "calibration_data": "random"},
        {"methods": "mp,ptq", "activation": "static", "smooth": 0.5, "scale": "mse", "pattern": "2:4", "sparsity": 0.5},
    ],
    ids=str,
)
def test_a_model_is_quantized_as_it_is(changes: dict[str, Any], at_once: Callable[..., Recipe], tmp_path: Path) -> None:
    recipe = at_once(**changes)
    planned = dry_run(recipe, reporter=QUIET)
    result = compress(recipe, reporter=QUIET)
    assert (result.steps, result.lr, result.bits) == (0, None, recipe.bits)
    assert result.methods == recipe.validate().methods
    assert (planned.plan.steps, planned.plan.methods) == (0, result.methods)
    assert (planned.parameters, planned.nonzero, planned.paper_bytes) == (
        result.parameters, result.nonzero, result.paper_bytes,
    )  # fmt: skip
    assert {layer.weight_counts().bits for _, layer in named_layers(sparseq.load(result.out))} == {recipe.bits}
    assert result.score == result.score_before_packing
    if recipe.uses("mp"):
        assert result.sparsity_reached == recipe.sparsity
    assert compress(recipe, reporter=QUIET).finished_before
    again = compress(recipe.replace(out=str(tmp_path / "again")), reporter=QUIET)
    assert digest(again) == digest(result) and again.metrics == result.metrics


def test_the_plan_says_what_is_quantized_and_from_which_rows(
    at_once: Callable[..., Recipe], capsys: pytest.CaptureFixture[str]
) -> None:
    def told(**changes: Any) -> str:
        return " ".join(" ".join(dry_run(at_once(**changes), reporter=QUIET).plan.lines).split())

    said = told()
    assert (
        "29 layers to 8 bits, at once" in said and "a scale for each token, found at run time: no calibration" in said
    )
    assert "training none (0 epochs): the model is taken as it is" in said
    said = told(activation="static", bits=4, scale="mse", smooth=0.25)
    assert "weight scales of linear layers by the least squared error" in said
    assert "4 attention outputs smoothed by 0.25" in said and "static ranges by average, from 66 training rows" in said
    assert "from 256 texts of random tokens" in told(activation="static", calibration_data="random")
    assert "at once, with no training to recover in" in told(methods="mp,ptq")
    assert "29 layers to 8 bits, after the last step" in told(epochs=1)


def test_without_training_there_must_be_a_trained_head_for_the_task(
    at_once: Callable[..., Recipe], make_model: Callable[..., Path], tmp_path: Path
) -> None:
    from transformers import AutoModel, AutoTokenizer

    three = make_model("three", num_labels=3)
    with pytest.raises(InputError, match=r"the model \S+ was trained for 3 labels, but the task has 2"):
        compress(at_once(model=str(three)), reporter=QUIET)
    body = tmp_path / "body"
    AutoModel.from_pretrained(three).save_pretrained(body)
    AutoTokenizer.from_pretrained(three).save_pretrained(body)
    with pytest.raises(InputError, match=r"the model \S+ has no trained classification head; fine-tune it"):
        compress(at_once(model=str(body)), reporter=QUIET)
    assert not Path(str(at_once().out)).exists()
    assert compress(at_once(model=str(body), epochs=1), reporter=QUIET).steps == 9


def test_training_before_ptq_is_that_of_the_other_methods(make_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    """The weights are those of the run without ptq, rounded once, and their scales are of the least error."""
    for methods in ("kd", "mp", "kd,mp"):
        settings = {"epochs": 1, "precision": "fp32"}
        plain = compress(make_recipe(methods=methods, out=str(tmp_path / methods), **settings), reporter=QUIET)
        out = str(tmp_path / f"{methods}-ptq")
        quantized = compress(
            make_recipe(methods=f"{methods},ptq", bits=4, scale="mse", out=out, **settings), reporter=QUIET
        )
        model = sparseq.load(plain.out)
        for name, rounded in weights(quantized).items():
            layer = model.get_submodule(name)
            weight = layer.quantized_values() if isinstance(layer, PackedLinear) else layer.weight
            scale = least_error_scale(weight, 4).unsqueeze(-1)
            expected = torch.round(weight * (1 / scale)).clamp(-7, 7) * scale
            assert torch.allclose(rounded, expected, atol=1e-6), name
        assert quantized.sparsity_reached == plain.sparsity_reached and quantized.nonzero == plain.nonzero


def test_prune_then_quantize_is_another_model_than_qat_with_pruning(
    make_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    ptq = compress(make_recipe(methods="mp,ptq", epochs=1, out=str(tmp_path / "ptq")), reporter=QUIET)
    qat = compress(make_recipe(methods="mp,qat", epochs=1, out=str(tmp_path / "qat")), reporter=QUIET)
    assert (ptq.bits, ptq.sparsity_reached, ptq.paper_bytes) == (qat.bits, qat.sparsity_reached, qat.paper_bytes)
    assert digest(ptq) != digest(qat)


def test_a_run_that_is_broken_off_ends_with_the_same_model(
    make_recipe: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"methods": "mp,ptq", "activation": "static", "smooth": 0.5, "scale": "mse", "epochs": 1}
    whole = compress(make_recipe(**settings, save_steps=4, out=str(tmp_path / "whole")), reporter=QUIET)
    recipe = make_recipe(**settings, save_steps=4, out=str(tmp_path / "broken"))
    run_broken(recipe, trainer.CompressTrainer, "training_step", 6, monkeypatch)
    run_broken(recipe, calibrating.SimilarLengths, "__iter__", 1, monkeypatch)
    run_broken(recipe, run, "pack", 1, monkeypatch)
    assert digest(compress(recipe, reporter=QUIET)) == digest(whole)


def test_a_run_without_training_can_be_broken_off_too(
    at_once: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = compress(at_once(activation="static", out=str(tmp_path / "whole")), reporter=QUIET)
    recipe = at_once(activation="static", out=str(tmp_path / "broken"))
    run_broken(recipe, run, "pack", 1, monkeypatch)
    assert digest(compress(recipe, reporter=QUIET)) == digest(whole)
    with pytest.raises(InputError, match="already holds another run"):
        compress(recipe.replace(smooth=0.5), reporter=QUIET)


def test_calibration_rows_are_those_of_the_first_batches(at_once: Callable[..., Recipe]) -> None:
    recipe = at_once(activation="static", calibration_rows=20, batch_size=8).validate()
    prepared = prepare(recipe)
    rows = tokenised_rows(recipe, prepared, QUIET).tokens
    batches = list(calibration_batches(recipe, rows, prepared))
    assert [len(batch["input_ids"]) for batch in batches] == [8, 8, 4]
    more = list(calibration_batches(recipe.replace(calibration_rows=256), rows, prepared))
    assert sum(len(batch["input_ids"]) for batch in more) == 66
    assert all(torch.equal(a["input_ids"], b["input_ids"]) for a, b in zip(batches[:2], more, strict=False))


def test_random_texts_read_no_row_and_depend_on_the_seed(at_once: Callable[..., Recipe]) -> None:
    recipe = at_once(activation="static", calibration_data="random", calibration_rows=12).validate()
    prepared = prepare(recipe)
    none: Any = None  # a row that is read would fail
    found, again = ([b["input_ids"] for b in calibration_batches(recipe, none, prepared)] for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True)) and sum(map(len, found)) == 12
    other = [b["input_ids"] for b in calibration_batches(recipe.replace(seed=7), none, prepared)]
    assert not all(a.shape == b.shape and torch.equal(a, b) for a, b in zip(found, other, strict=True))


def test_random_texts_are_of_the_vocabulary_and_fill_the_columns(tiny_tokenizer: Any) -> None:
    texts = random_texts(tiny_tokenizer, 50, 20, ("text_a", "text_b"), seed=3)
    assert isinstance(texts, Dataset) and texts.column_names == ["text_a", "text_b"] and len(texts) == 50
    words = {word for row in texts for text in row.values() for word in text.split()}
    assert words <= set(tiny_tokenizer.get_vocab()) - set(tiny_tokenizer.all_special_tokens)
    assert len(words) == len(tiny_tokenizer.get_vocab()) - len(set(tiny_tokenizer.all_special_tokens))
    lengths = [len(row["text_a"].split()) + len(row["text_b"].split()) for row in texts]
    assert min(lengths) >= 2 and max(lengths) <= 20 and len(set(lengths)) > 5
