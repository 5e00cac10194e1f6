"""Recipes: what a file may say, what is refused, and that what is written reads back the same."""

import dataclasses
import time
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


def alias_bomb(levels: int) -> str:
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, levels)]
    return "\n".join([*lines, f"model: *a{levels - 1}"]) + "\n"


BOUNDED = [
    ("alias bomb", "r.yaml", alias_bomb(9), r"anchors and aliases .* are not read \(line 1\)"),
    ("alias bomb of mappings", "r.yaml", alias_bomb(9).replace("[", "{x: ").replace("]", "}"), "anchors and aliases"),
    ("one alias", "r.yaml", "model: &m tiny\nteacher: *m\n", "anchors and aliases"),
    ("merge key", "r.yaml", "<<: *m\n", "anchors and aliases|not valid yaml"),
    ("tag", "r.yaml", "model: !!python/object/apply:os.system [ls]\n", r"tags \(!\) are not read \(line 1\)"),
    ("binary", "r.yaml", "model: !!binary aGVsbG8=\n", "tags"),
    ("nested lists", "r.yaml", "model: " + "[" * 20_000 + "]" * 20_000, "deeper than 16 levels"),
    ("nested mappings", "r.yaml", "model: " + "{a: " * 9_000, "deeper than 16 levels"),
    ("nested blocks", "r.yaml", "\n".join(" " * i + "a:" for i in range(300)), "deeper than 16 levels"),
    ("name twice", "r.yaml", "model: tiny\nbits: 8\nmodel: base\n", r"a setting is given twice \(line 3\)"),
    ("name that is a list", "r.yaml", "? [a, b]\n: 1\n", r"name must be text \(line 1\)"),
    ("no such date", "r.yaml", "model: 2024-99-99\n", "not valid yaml"),
    ("control character", "r.yaml", "model: \x1b[31m\n", "not valid yaml"),
    ("two documents", "r.yaml", "model: a\n---\nmodel: b\n", "not valid yaml"),
    ("nested arrays", "r.toml", "model = " + "[" * 20_000 + "]" * 20_000, "deeper than 16 levels"),
    ("inline tables", "r.toml", "model = " + "{a=" * 9_000 + "1" + "}" * 9_000, "deeper than 16 levels"),
    ("dotted name", "r.toml", "model" + ".a" * 30_000 + " = 1\n", "deeper than 16 levels"),
    ("dotted header", "r.toml", "[model" + ".a" * 30_000 + "]\nb = 1\n", "deeper than 16 levels"),
    ("dotted quoted name", "r.toml", "model" + '."a"' * 15_000 + " = 1\n", "deeper than 16 levels"),
    ("nested within bounds", "r.toml", "model = " + "[" * 12 + "]" * 12, "--model wants text, not"),
    ("name twice", "r.toml", 'model = "a"\nmodel = "b"\n', "not valid toml"),
    ("long number", "r.toml", "bits = " + "1" * 5_000, "not valid toml"),
    ("large number", "r.toml", "lr = " + "1" * 400, "--lr wants a number"),
    ("large whole number", "r.toml", "bits = " + "1" * 400, "--bits wants a whole number"),
    ("infinity", "r.toml", "epochs = inf\n", "--epochs wants a number"),
    ("half a pair", "r.yaml", 'model: "\\ud800"\n', "--model wants text"),
    ("zero byte", "r.toml", 'model = "a\\u0000b"\n', "--model wants text"),
    ("zero byte in a list", "r.toml", 'methods = ["a\\u0000b"]\n', "--methods wants names"),
    ("long value", "r.toml", 'bits = "' + "x" * 50_000 + '"\n', "--bits wants a whole number"),
    ("long name", "r.toml", "x" * 50_000 + " = 1\n", "unknown setting"),
    ("long method", "r.toml", 'model = "a"\nout = "b"\nmethods = "' + "x" * 50_000 + '"\n', "unknown method"),
    ("too large", "r.toml", "# " + "x" * 70_000, "holds more than 64 KiB"),
    ("UTF-16", "r.toml", "model = 'tiny'\n".encode("utf-16"), "is not UTF-8 text"),
    ("Latin-1", "r.yaml", "label_column: caf\xe9\n".encode("latin-1"), r"is not UTF-8 text \(byte 0xe9 at offset 17\)"),
]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [case[1:] for case in BOUNDED],
    ids=[f"{case[0]}, {case[1]}" for case in BOUNDED],
)
def test_a_hostile_file_is_refused_soon_and_in_a_short_sentence(
    name: str, content: str | bytes, sentence: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    began = time.monotonic()
    with pytest.raises(InputError, match=sentence) as caught:
        Recipe.from_file(tmp_path / name).validate()
    assert time.monotonic() - began < 20
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1500


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    for name, content in (("r.toml", 'model = "tiny"\r\n'), ("r.yaml", "model: tiny\r\n")):
        (tmp_path / name).write_bytes(content.encode("utf-8-sig"))
        assert Recipe.from_file(tmp_path / name).model == "tiny"


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
