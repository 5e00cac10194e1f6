"""Recipes: what a file may say, what is refused, and that what is written reads back the same."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from sparseq.errors import InputError
from sparseq.train import Recipe


def full(**changes: Any) -> Recipe:
    return Recipe.from_dict({"model": "tiny", "task": "sst2", "teacher": "t", "out": "out", **changes}).validate()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"methods": "mp,qat", "layers": "0,2", "pattern": "2:4", "sparsity": 0.5, "lr": 3e-4},
        {"methods": "none", "max_train_rows": 5, "protected_words": "good, bad", "regrow": True},
        {"train_file": 'a "quoted"\\name.csv', "text_columns": "Überschrift", "label_column": "sterne\t"},
    ],
    ids=str,
)
def test_written_and_read_back(changes: dict[str, Any], tmp_path: Path) -> None:
    recipe = full(**changes)
    (tmp_path / "recipe.toml").write_text(recipe.to_toml(), encoding="utf-8")
    assert Recipe.from_file(tmp_path / "recipe.toml").replace(out="out") == recipe


def test_yaml_says_the_same_as_toml(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("model: tiny\nmethods: [qat, mp]\nlayers: [0, 2]\nlr: 3e-4\nsparsity: 0.5\n")
    (tmp_path / "r.toml").write_text('model = "tiny"\nmethods = "qat,mp"\nlayers = [0, 2]\nlr = 3e-4\nsparsity = 0.5\n')
    assert Recipe.from_file(tmp_path / "r.yaml") == Recipe.from_file(tmp_path / "r.toml")
    assert Recipe.from_file(tmp_path / "r.toml").lr == 3e-4


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("r.toml", "model = \n", r"r\.toml is not valid toml"),
        ("r.yaml", "a: [1\n", r"r\.yaml is not valid yaml"),
        ("r.yaml", "- 1\n", r"not a table of settings"),
        ("r.json", "{}", r"neither \.toml nor \.yaml"),
        ("r.toml", "sparcity = 0.5\n", r"unknown setting 'sparcity': did you mean 'sparsity'\?"),
        ("r.toml", "zzz = 1\n", r"unknown setting 'zzz': the settings are model, teacher"),
        ("r.toml", "bits = true\n", r"--bits wants a whole number"),
        ("r.toml", 'regrow = "yes please"\n', r"--regrow wants true or false"),
        ("r.toml", "model = 3\n", r"--model wants text"),
        ("r.toml", "methods = [1]\n", r"--methods wants names"),
        ("r.toml", "layers = []\n", r"--layers wants a number of layers"),
    ],
)
def test_files_that_are_refused(name: str, content: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=sentence):
        Recipe.from_file(tmp_path / name)


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
