"""Runs on a data set in a folder: the same model as from files, and what their folders say of it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import datasets
import pandas as pd
import pytest

from sparseq.checkpoint import read_metadata
from sparseq.cli import main
from sparseq.errors import InputError
from sparseq.study.keys import key_of
from sparseq.train import Recipe, compress, evaluate
from sparseq.train.given import Given
from sparseq.train.plan import dry_run
from sparseq.train.prepare import prepare

FEW = {"methods": "qat", "epochs": 0.2}
NO_FILES = {"train_file": None, "validation_file": None}


@pytest.fixture
def films(tiny_csv: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> datasets.DatasetDict:
    """The rows of the tiny files, also saved in the folder `films`."""
    monkeypatch.chdir(tmp_path)
    train, dev = (datasets.Dataset.from_pandas(pd.read_csv(path)) for path in tiny_csv)
    found = datasets.DatasetDict(train=train, dev=dev)
    found.save_to_disk("films")
    return found


def test_a_run_on_a_data_set(
    make_recipe: Callable[..., Recipe], films: datasets.DatasetDict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from_files = compress(make_recipe(**FEW))
    recipe = make_recipe(**FEW, **NO_FILES, dataset="films", validation_split="dev", out=str(tmp_path / "named"))
    result = compress(recipe)
    assert read_metadata(result.out)["sha256"] == read_metadata(from_files.out)["sha256"]
    assert result.fingerprint == from_files.fingerprint
    folder = str(tmp_path / "films")
    metrics = json.loads(Path(result.out, "metrics.json").read_text())
    assert metrics["dataset"] == {"name": folder} and from_files.dataset == {}
    assert Recipe.from_file(Path(result.out, "recipe.toml")).dataset == folder
    assert compress(recipe).finished_before

    in_memory = recipe.replace(dataset=None, out=str(tmp_path / "memory"))
    assert prepare(in_memory, Given(data=films)).fingerprint == result.fingerprint
    assert dry_run(in_memory, data=films).plan.rows == result.rows
    with pytest.raises(InputError, match="the argument data and validation rows are both given"):
        compress(in_memory, data=films, validation=films["dev"])

    capsys.readouterr()
    assert evaluate(result.out)["score"] == result.score
    assert evaluate(result.out, validation_split="train[:10]")["rows"] == {"validation": 10}
    assert main(["evaluate", from_files.out, "--dataset", "films", "--validation-split", "dev", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["score"] == result.score
    assert main(["evaluate", from_files.out, "--validation-split", "dev"]) == 2
    assert "name splits of a data set" in capsys.readouterr().err
    column = ",".join(result.task_definition["columns"])
    chosen = ["--text-columns", column, "--json"]
    assert main(["predict", result.out, "--dataset", "films", "--split", "dev[:7]", *chosen]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 7
    assert main(["predict", result.out, "--dataset", "films"]) == 2
    assert "films has no split 'test': its splits are train, dev; name one with --split" in capsys.readouterr().err
    assert main(["predict", result.out, "a text", "--split", "dev"]) == 2
    assert "--split names a split of --dataset" in capsys.readouterr().err

    shutil.rmtree("films")
    assert compress(recipe.replace(dataset=folder)).finished_before  # with a note that its data is not there
    datasets.DatasetDict(train=films["train"].select(range(1, 20)), dev=films["dev"]).save_to_disk("films")
    with pytest.raises(InputError, match="the training data has changed"):
        compress(recipe)


def test_the_key_of_a_cell_is_of_the_rows(make_recipe: Callable[..., Recipe], films: datasets.DatasetDict) -> None:
    recipe = make_recipe(**FEW, **NO_FILES, dataset="films", validation_split="dev")
    key = key_of(recipe)
    shutil.copytree("films", "moved")
    Path("moved", "train", "cache-0.arrow").write_bytes(b"left by datasets")
    assert key_of(recipe.replace(dataset="moved")) == key
    assert key_of(recipe.replace(validation_split="train[90%:]")) != key
    shutil.rmtree("films")
    with pytest.raises(InputError, match="there is no folder"):
        key_of(recipe.replace(dataset="./films"))
    datasets.DatasetDict(train=films["train"], dev=films["train"]).save_to_disk("films")
    assert key_of(recipe) != key
    hub = [key_of(recipe.replace(dataset=name)) for name in ("a/b:c", "a/b:d", "a/b:c@v1", "a/b")]
    assert len({key, *hub}) == 5
