"""A finished run's folder in which something was changed, or whose files cannot be read any more."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import nn

import sparseq
from sparseq.errors import InputError, MachineError
from sparseq.train import Recipe, compress
from sparseq.train.evaluating import evaluate
from sparseq.train.folder import METRICS, RECIPE
from sparseq.train.lock import run_lock
from sparseq.train.scoring import load_folder


@pytest.fixture(scope="module")
def finished(tiny_model_dir: Path, tiny_csv: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    recipe = Recipe.from_dict(
        {
            "model": str(tiny_model_dir), "train_file": str(tiny_csv[0]), "validation_file": str(tiny_csv[1]),
            "methods": "qat", "max_length": 32, "batch_size": 16, "epochs": 0.2, "precision": "fp32",
            "out": str(tmp_path_factory.mktemp("finished")),
        }
    )  # fmt: skip
    compress(recipe)
    return recipe


@pytest.fixture
def run(finished: Recipe, tmp_path: Path) -> Recipe:
    """A copy of the finished run, to be harmed."""
    shutil.copytree(str(finished.out), tmp_path / "run")
    return finished.replace(out=str(tmp_path / "run"))


def swap_words(folder: Path) -> None:
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary["good"], vocabulary["bad"] = vocabulary["bad"], vocabulary["good"]
    path.write_text(json.dumps(content))


def keep_case(folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):  # the latter's word counts
        text = (folder / name).read_text()
        for setting in ("lowercase", "do_lower_case"):
            text = text.replace(f'"{setting}": true', f'"{setting}": false')
        (folder / name).write_text(text)


def cut_left(folder: Path) -> None:
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "truncation_side": "left"}))


HARMS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "another vocabulary": (swap_words, "is not the one that was saved with its model"),
    "another normalizer": (keep_case, "is not the one that was saved with its model"),
    "another side is cut": (cut_left, "is not the one that was saved with its model"),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "holds no tokenizer"),
}


@pytest.mark.parametrize("harm", HARMS)
def test_another_tokenizer_beside_the_model(harm: str, run: Recipe) -> None:
    alter, sentence = HARMS[harm]
    assert evaluate(str(run.out))["score"] >= 0
    alter(Path(str(run.out)))
    for use in (evaluate, load_folder):
        with pytest.raises(InputError, match=sentence):
            use(str(run.out))
    with pytest.raises(InputError, match=rf"holds a finished run whose model is damaged \(.*{sentence}"):
        compress(run)


def test_a_tokenizer_that_another_version_reads(run: Recipe) -> None:
    """It can come to another digest though its files are the same."""
    path = Path(str(run.out)) / METRICS
    metrics = json.loads(path.read_text())
    assert metrics["tokenizer"]
    versions = {**metrics["versions"], "transformers": "1"}
    path.write_text(json.dumps({**metrics, "tokenizer": "other", "versions": versions}))
    load_folder(str(run.out))


@pytest.mark.parametrize("name", [RECIPE, METRICS])
@pytest.mark.parametrize("content", ["{", "[]", "a = [", "\0"])
def test_files_of_the_run_that_cannot_be_read(name: str, content: str, run: Recipe) -> None:
    (Path(str(run.out)) / name).write_text(content)
    with pytest.raises(InputError) as caught:
        compress(run)
    said = str(caught.value)
    assert str(run.out) in said and ("run it into a new folder" in said or "remove that folder to run it again" in said)


def no_room(*args: Any, **options: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_no_room_for_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "open", no_room)
    with pytest.raises(MachineError, match="free some space"), run_lock(tmp_path / "out", print):
        pass


def test_no_room_for_a_saved_model_is_not_bad_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`InputError` says that what was given is wrong: here nothing was."""
    model = sparseq.convert(nn.Sequential(nn.Linear(4, 4)))
    monkeypatch.setattr(os, "mkdir", no_room)
    with pytest.raises(OSError, match="No space left") as caught:
        sparseq.save(model, tmp_path / "saved")
    assert not isinstance(caught.value, InputError)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"label_column": "label"}, "--label-column is not given there and label here"),
        ({"text_columns": "sentence"}, "--text-columns is not given there and sentence here"),
        ({"methods": "none"}, "--methods is qat there and none here"),
        ({"regrow": True}, "--regrow is off there and on here"),
        ({"max_train_rows": 9}, "--max-train-rows is not given there and 9 here"),
    ],
)
def test_what_differs_is_told_as_it_is_given(changes: dict[str, Any], said: str, finished: Recipe) -> None:
    with pytest.raises(InputError) as caught:
        compress(finished.replace(**changes))
    assert said in str(caught.value)
