"""Whatever is wrong with what was given: one sentence, exit code 2, and no folder left behind."""

import builtins
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sparseq.cli import main
from sparseq.errors import InputError
from sparseq.train import Recipe, compress, prepare
from sparseq.train.recipe import PATH_SETTINGS


@pytest.fixture
def base(tiny_model_dir: Path, tiny_teacher_dir: Path, tiny_csv: tuple[Path, Path], tmp_path: Path) -> dict[str, Any]:
    """Flags of a run that would work."""
    return {
        "--model": tiny_model_dir,
        "--teacher": tiny_teacher_dir,
        "--train-file": tiny_csv[0],
        "--validation-file": tiny_csv[1],
        "--max-length": 32,
        "--batch-size": 8,
        "--epochs": 1,
        "--out": tmp_path / "out",
    }


def refused(capsys: pytest.CaptureFixture[str], argv: list[str]) -> str:
    """The one sentence that `argv` is refused with."""
    capsys.readouterr()
    assert main(argv) == 2
    said = capsys.readouterr()
    assert said.out == ""
    *progress, last = said.err.splitlines()
    assert last.startswith("sparseq: error: ")
    assert not any("Traceback" in line for line in progress)
    return last.removeprefix("sparseq: error: ")


CASES: list[tuple[dict[str, Any], str]] = [
    ({"--task": "sst3"}, r"unknown task 'sst3'.*sst2"),
    ({"--methods": "qat,prune"}, r"unknown method 'prune'.*qat, kd, mp"),
    ({"--pattern": "4by4"}, r"unknown sparsity pattern '4by4'.*4x4"),
    ({"--model": "huge"}, r"'?huge"),
    ({"--model": "./missing"}, r"there is no folder ./missing"),
    ({"--sparsity": 1}, r"sparsity must be at least 0 and below 1.*not 1"),
    ({"--sparsity": -0.1}, r"sparsity must be at least 0 and below 1"),
    ({"--sparsity": "much"}, r"--sparsity wants a number, not 'much'"),
    ({"--sparsity": "nan"}, r"--sparsity wants a number, not 'nan'"),
    ({"--pattern": "2:4"}, r"pattern 2:4 keeps 2 of every 4 weights.*at most 0.5"),
    ({"--pattern": "48x48"}, r"pattern 48x48 does not divide layer 'bert\.encoder\.layer\.0\..*--on-mismatch skip"),
    ({"--pattern": "48x48", "--on-mismatch": "skip"}, r"nothing to prune"),
    ({"--pattern": "3x32", "--prune-embeddings": None}, r"pattern 3x32 does not divide layer"),
    ({"--bits": 3}, r"--bits wants one of 4, 8, 16, not '3'"),
    ({"--max-layer-sparsity": 1.1}, r"--max-layer-sparsity wants a number of at least 0 and at most 1, not '1.1'"),
    ({"--augment-alpha": -1}, r"--augment-alpha wants a number of at least 0 and at most 1, not '-1'"),
    ({"--calibration": "median"}, r"--calibration wants one of max, average, percentile, mse, not 'median'"),
    ({"--scope": "all"}, r"--scope wants one of auto, global, lamp, layer, not 'all'"),
    ({"--epochs": 0}, r"--epochs wants a number above 0, not '0'"),
    ({"--batch-size": 2.5}, r"--batch-size wants a whole number of at least 1, not '2.5'"),
    ({"--seed": -1}, r"--seed wants a whole number of at least 0"),
    ({"--kd-alpha": 2}, r"--kd-alpha wants a number of at least 0 and at most 1, not '2'"),
    ({"--temperature": 0}, r"--temperature wants a number above 0"),
    ({"--prune-warmup": 0.8}, r"pruning cannot end \(--prune-end 0.7\) before it starts"),
    ({"--text-columns": "review"}, r"'review'.*(sentence|label)"),
    ({"--label-column": "stars"}, r"'stars'.*(sentence|label)"),
    ({"--train-file": "missing.csv"}, r"missing\.csv"),
    ({"--data-dir": "glue"}, r"not both"),
    ({"--max-length": 4096}, r"--max-length 4096 is more than the 64 tokens"),
    ({"--layers": 9}, r"layers is 9, but the model has 2"),
    ({"--layers": "x"}, r"--layers wants a number of layers such as 3"),
    ({"--augment-copies": 1, "--wordnet": "nowhere"}, r"WordNet folder nowhere"),
    ({"--recipe": "missing.toml"}, r"cannot read recipe missing\.toml"),
    ({"--teacher": None}, r"expected one argument"),
    ({"--frobnicate": 1}, r"unrecognized arguments: --frobnicate"),
]


@pytest.mark.parametrize(("changes", "sentence"), CASES, ids=lambda value: str(value)[:60])
def test_compress_refuses(
    changes: dict[str, Any],
    sentence: str,
    base: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    flags = {**base, **changes}
    said = refused(capsys, ["compress", *(str(part) for flag in flags.items() for part in flag if part is not None)])
    assert re.search(sentence, said), said
    assert not Path(base["--out"]).exists()


PATHS = ("--model", "--teacher", "--train-file", "--validation-file", "--data-dir", "--wordnet", "--out", "--recipe")
ODD_PATHS = {
    "no such user": "~nosuchuser/x",
    "too long": "./" + "x" * 5000,
    "a name too long": "x" * 300,
    "a loop": "loop",
    "in a loop": "loop/x",
    "in a file": "file/x",
    "a device": "/dev/zero",
    "a pipe": "pipe",
}


@pytest.mark.parametrize("odd", ODD_PATHS)
@pytest.mark.parametrize("flag", PATHS)
def test_paths_of_every_kind(
    flag: str,
    odd: str,
    base: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    assert set(PATHS) - {"--recipe"} == {f"--{name.replace('_', '-')}" for name in PATH_SETTINGS}
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    Path("loop").symlink_to("loop")
    Path("file").write_text("mine")
    os.mkfifo("pipe")
    given = {**base, "--methods": "kd", "--augment-copies": 1, flag: ODD_PATHS[odd]}
    if flag == "--data-dir":
        given = {name: value for name, value in given.items() if not name.endswith("-file")} | {"--task": "sst2"}
    said = refused(capsys, flags(given))
    assert len(said) <= 2000
    assert not Path(base["--out"]).exists()


def test_resolved_refuses_a_home_that_is_not_known(make_recipe: Callable[..., Recipe]) -> None:
    for name in PATH_SETTINGS:
        with pytest.raises(InputError, match="home that is not known"):
            make_recipe(**{name: "~nosuchuser/x"}).resolved()


def flags(given: dict[str, Any]) -> list[str]:
    return ["compress", *(str(part) for flag in given.items() for part in flag)]


@pytest.mark.parametrize("missing", ["--model", "--out", "--teacher", "--train-file"])
def test_what_must_be_given(missing: str, base: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    kept = {name: value for name, value in base.items() if name != missing}
    if missing == "--train-file":
        del kept["--validation-file"]
    said = refused(capsys, flags(kept))
    assert {"--train-file": "--task", "--out": "--out"}.get(missing, missing) in said


def write(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8")
    return path


def test_bad_rows(base: dict[str, Any], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    empty = write(tmp_path / "empty.csv", "sentence,label\n")
    assert "empty.csv" in refused(capsys, flags({**base, "--train-file": empty}))
    out_of_range = write(tmp_path / "range.csv", "sentence,label\ngood,0\nbad,1\nfine,7\n")
    said = refused(capsys, flags({**base, "--task": "sst2", "--train-file": out_of_range}))
    assert "7" in said
    unseen = write(tmp_path / "unseen.csv", "sentence,label\ngood,5\n")
    assert "5" in refused(capsys, flags({**base, "--validation-file": unseen}))
    assert not Path(base["--out"]).exists()


def test_teachers(
    base: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    make_model: Callable[..., Path],
    tiny_regression_csv: tuple[Path, Path],
) -> None:
    three = make_model("three", num_labels=3)
    assert "was trained for 3 labels, but the task has 2" in refused(capsys, flags({**base, "--teacher": three}))
    shallow = make_model("shallow", num_hidden_layers=1)
    said = refused(capsys, flags({**base, "--teacher": shallow, "--hidden-loss": 1}))
    assert "cannot be mapped to 1 teacher layers" in said
    regression = {"--train-file": tiny_regression_csv[0], "--validation-file": tiny_regression_csv[1]}
    one = make_model("one", num_labels=1)
    said = refused(capsys, flags({**base, **regression, "--teacher": one, "--kd-loss": "ce"}))
    assert "--kd-loss mse" in said
    assert not Path(base["--out"]).exists()


def test_no_hub_and_no_copy(
    base: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    said = refused(capsys, flags({**base, "--model": "tiny"}))
    assert "cached" in said and "folder" in said
    assert not Path(base["--out"]).exists()


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_weights_that_are_not_finite(
    value: str, base: dict[str, Any], capsys: pytest.CaptureFixture[str], tiny_model_dir: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in tiny_model_dir.iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    tensors = load_file(broken / "model.safetensors")
    tensors["bert.encoder.layer.1.output.dense.weight"][3, 3] = float(value)
    save_file(tensors, broken / "model.safetensors", {"format": "pt"})
    said = refused(capsys, flags({**base, "--model": broken}))
    assert "bert.encoder.layer.1.output.dense.weight" in said
    assert not Path(base["--out"]).exists()


def test_activations_that_are_not_finite(
    base: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
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
    said = refused(capsys, flags({**base, "--methods": "none"}))
    assert "the loss at step 1 is not a finite number" in said
    assert "'bert.encoder.layer.1.intermediate.dense'" in said
    assert not Path(base["--out"]).exists()


def test_a_folder_in_use(base: dict[str, Any], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = Path(base["--out"])
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    assert "is not empty (thesis.txt is in it)" in refused(capsys, flags(base))
    assert [path.name for path in out.iterdir()] == ["thesis.txt"]
    assert "is a file" in refused(capsys, flags({**base, "--out": out / "thesis.txt"}))
    assert "cannot write" in refused(capsys, flags({**base, "--out": out / "thesis.txt" / "deeper"}))
    ours = {**base, "--out": tmp_path / "ours"}
    assert main(flags(ours)) == 0
    said = refused(capsys, flags({**ours, "--lr": 0.5, "--methods": "mp"}))
    assert "already holds another run" in said
    assert "lr is auto there and 0.5 here" in said and "methods is qat,kd,mp there and mp here" in said
    assert main(flags({**ours, "--save-steps": 7})) == 0  # only how it is run, not what is run


def test_damaged_models(make_recipe: Callable[..., Recipe], capsys: pytest.CaptureFixture[str]) -> None:
    out = Path(compress(make_recipe()).out)
    weights = out / "model.safetensors"
    whole = weights.read_bytes()
    for command in (["evaluate", str(out)], ["predict", str(out), "good"], ["size", str(out)]):
        weights.write_bytes(whole[: len(whole) // 2])
        assert "truncated or damaged" in refused(capsys, command)
        weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        assert "altered" in refused(capsys, command)
        weights.unlink()
        assert "holds no model.safetensors" in refused(capsys, command)
        weights.write_bytes(whole)
    assert "there is no folder" in refused(capsys, ["evaluate", str(out / "none")])
    (out / "metrics.json").write_text("[1")
    assert "cannot read" in refused(capsys, ["evaluate", str(out)])
    (out / "metrics.json").write_text(json.dumps({"task": "sst2"}))
    assert "metrics.json" in refused(capsys, ["predict", str(out), "good"])
    (out / "metrics.json").unlink()
    assert "an unfinished run: give the same `sparseq compress` command again" in refused(
        capsys, ["evaluate", str(out)]
    )


def test_evaluate_and_predict_refuse(make_recipe: Callable[..., Recipe], capsys: pytest.CaptureFixture[str]) -> None:
    out = compress(make_recipe()).out
    assert "reads one text" in refused(capsys, ["predict", out, "good", "--text-pair", "bad"])
    assert "missing.csv" in refused(capsys, ["evaluate", out, "--validation-file", "missing.csv"])
    assert "--max-validation-rows wants a whole number of at least 1" in refused(
        capsys, ["evaluate", out, "--max-validation-rows", "0"]
    )
    assert "'review'" in refused(capsys, ["evaluate", out, "--text-columns", "review"])
    other = ["evaluate", out, "--data-dir", "glue", "--label-column", "stars"]
    assert "give that too" in refused(capsys, other)


def test_a_missing_extra(
    base: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without_transformers(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] == "transformers":
            raise ModuleNotFoundError("No module named 'transformers'", name="transformers")
        return real(name, *args, **kwargs)

    for module in ("sparseq.train.run", "sparseq.train.trainer", "sparseq.train.scoring"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setattr(builtins, "__import__", without_transformers)
    said = refused(capsys, flags(base))
    assert said == "this needs transformers, which is not installed: pip install 'sparseq[train]'"
