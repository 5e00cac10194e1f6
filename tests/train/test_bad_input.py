"""Data, models and folders that a run cannot use: one sentence, exit code 2, and no folder left behind."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from refusals import compress_flags, refused_run
from safetensors.torch import load_file, save_file

from sparseq.cli import main
from sparseq.train import Recipe, compress, prepare


def write(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8")
    return path


def test_bad_rows(run_flags: dict[str, Any], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    empty = write(tmp_path / "empty.csv", "sentence,label\n")
    assert "empty.csv" in refused_run(capsys, compress_flags({**run_flags, "--train-file": empty}))
    out_of_range = write(tmp_path / "range.csv", "sentence,label\ngood,0\nbad,1\nfine,7\n")
    said = refused_run(capsys, compress_flags({**run_flags, "--task": "sst2", "--train-file": out_of_range}))
    assert "7" in said
    unseen = write(tmp_path / "unseen.csv", "sentence,label\ngood,5\n")
    assert "5" in refused_run(capsys, compress_flags({**run_flags, "--validation-file": unseen}))
    assert not Path(run_flags["--out"]).exists()


def test_teachers(
    run_flags: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    make_model: Callable[..., Path],
    tiny_regression_csv: tuple[Path, Path],
) -> None:
    three = make_model("three", num_labels=3)
    assert "was trained for 3 labels, but the task has 2" in refused_run(
        capsys, compress_flags({**run_flags, "--teacher": three})
    )
    shallow = make_model("shallow", num_hidden_layers=1)
    said = refused_run(capsys, compress_flags({**run_flags, "--teacher": shallow, "--hidden-loss": 1}))
    assert "cannot be mapped to 1 teacher layers" in said
    regression = {"--train-file": tiny_regression_csv[0], "--validation-file": tiny_regression_csv[1]}
    one = make_model("one", num_labels=1)
    said = refused_run(capsys, compress_flags({**run_flags, **regression, "--teacher": one, "--kd-loss": "ce"}))
    assert "--kd-loss mse" in said
    assert not Path(run_flags["--out"]).exists()


def test_no_hub_and_no_copy(
    run_flags: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    said = refused_run(capsys, compress_flags({**run_flags, "--model": "tiny"}))
    assert "cached" in said and "folder" in said
    assert not Path(run_flags["--out"]).exists()


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_weights_that_are_not_finite(
    value: str, run_flags: dict[str, Any], capsys: pytest.CaptureFixture[str], tiny_model_dir: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in tiny_model_dir.iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    tensors = load_file(broken / "model.safetensors")
    tensors["bert.encoder.layer.1.output.dense.weight"][3, 3] = float(value)
    save_file(tensors, broken / "model.safetensors", {"format": "pt"})
    said = refused_run(capsys, compress_flags({**run_flags, "--model": broken}))
    assert "bert.encoder.layer.1.output.dense.weight" in said
    assert not Path(run_flags["--out"]).exists()


def test_activations_that_are_not_finite(
    run_flags: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A layer that overflows in training is named."""
    load = prepare.load_model

    def load_overflowing(*args: Any, **kwargs: Any) -> Any:
        model, tokenizer = load(*args, **kwargs)
        if not kwargs.get("teacher"):
            layer = model.bert.encoder.layer[1].intermediate.dense
            layer.register_forward_pre_hook(lambda module, given: (given[0] * torch.inf,))
        return model, tokenizer

    monkeypatch.setattr(prepare, "load_model", load_overflowing)
    said = refused_run(capsys, compress_flags({**run_flags, "--methods": "none"}))
    assert "the loss at step 1 is not a finite number" in said
    assert "'bert.encoder.layer.1.intermediate.dense'" in said
    assert not Path(run_flags["--out"]).exists()


def test_a_folder_in_use(run_flags: dict[str, Any], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = Path(run_flags["--out"])
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    assert "is not empty (thesis.txt is in it)" in refused_run(capsys, compress_flags(run_flags))
    assert [path.name for path in out.iterdir()] == ["thesis.txt"]
    assert "is a file" in refused_run(capsys, compress_flags({**run_flags, "--out": out / "thesis.txt"}))
    assert "cannot write" in refused_run(capsys, compress_flags({**run_flags, "--out": out / "thesis.txt" / "deeper"}))
    ours = {**run_flags, "--out": tmp_path / "ours"}
    assert main(compress_flags(ours)) == 0
    said = refused_run(capsys, compress_flags({**ours, "--lr": 0.5, "--methods": "mp"}))
    assert "already holds another run" in said
    assert "lr is auto there and 0.5 here" in said and "methods is qat,kd,mp there and mp here" in said
    assert main(compress_flags({**ours, "--save-steps": 7})) == 0  # only how it is run, not what is run


def test_damaged_models(make_recipe: Callable[..., Recipe], capsys: pytest.CaptureFixture[str]) -> None:
    out = Path(compress(make_recipe()).out)
    weights = out / "model.safetensors"
    whole = weights.read_bytes()
    for command in (["evaluate", str(out)], ["predict", str(out), "good"], ["size", str(out)]):
        weights.write_bytes(whole[: len(whole) // 2])
        assert "truncated or damaged" in refused_run(capsys, command)
        weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        assert "altered" in refused_run(capsys, command)
        weights.unlink()
        assert "holds no model.safetensors" in refused_run(capsys, command)
        weights.write_bytes(whole)
    assert "there is no folder" in refused_run(capsys, ["evaluate", str(out / "none")])
    (out / "metrics.json").write_text("[1")
    assert "cannot read" in refused_run(capsys, ["evaluate", str(out)])
    (out / "metrics.json").write_text(json.dumps({"task": "sst2"}))
    assert "metrics.json" in refused_run(capsys, ["predict", str(out), "good"])
    (out / "metrics.json").unlink()
    assert "an unfinished run: give the same `sparseq compress` command again" in refused_run(
        capsys, ["evaluate", str(out)]
    )


def test_evaluate_and_predict_refuse(make_recipe: Callable[..., Recipe], capsys: pytest.CaptureFixture[str]) -> None:
    out = compress(make_recipe()).out
    assert "reads one text" in refused_run(capsys, ["predict", out, "good", "--text-pair", "bad"])
    assert "missing.csv" in refused_run(capsys, ["evaluate", out, "--validation-file", "missing.csv"])
    assert "--max-validation-rows wants a whole number of at least 1" in refused_run(
        capsys, ["evaluate", out, "--max-validation-rows", "0"]
    )
    assert "'review'" in refused_run(capsys, ["evaluate", out, "--text-columns", "review"])
    other = ["evaluate", out, "--data-dir", "glue", "--label-column", "stars"]
    assert "give that too" in refused_run(capsys, other)
