"""Recipe files: what TOML and YAML may say, what is refused, and that what is written reads back the same."""

import time
from pathlib import Path
from typing import Any

import pytest
from recipes import full

from sparseq.errors import InputError
from sparseq.train import Recipe


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
        ("r.toml", "bits = true\n", r"^\S+r\.toml: --bits wants a whole number"),
        ("r.toml", 'regrow = "yes please"\n', r"--regrow wants true or false"),
        ("r.toml", "model = 3\n", r"--model wants text"),
        ("r.toml", "methods = [1]\n", r"--methods wants names"),
        ("r.toml", "layers = []\n", r"--layers wants a number of layers"),
        ("r.toml", "[train]\nlr = 1e-4\n", r"has a table 'train': settings stand at the top"),
        ("r.yaml", "training: {lr: 1e-4}\n", r"has a table 'training': settings stand at the top"),
        ("r.yaml", "seed: x\n", r"^\S+r\.yaml: --seed wants a whole number"),
    ],
)
def test_files_that_are_refused(name: str, content: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=sentence):
        Recipe.from_file(tmp_path / name)


@pytest.mark.parametrize("name", ["R.TOML", "R.Yaml", "r.YML"])
def test_a_suffix_in_any_case(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("seed = 3\n" if "TOML" in name else "seed: 3\n")
    assert Recipe.from_file(tmp_path / name).seed == 3


YAML_TEXTS = {
    "pattern: 2:4": ("pattern", "2:4"),
    "pattern: 32x32": ("pattern", "32x32"),
    "text_columns: [no, not]": ("text_columns", ("no", "not")),
    "text_columns:\n- y\n- n\n": ("text_columns", ("y", "n")),
    "protected_words: [null, ~x, 'null', 1, 1.0, 2024-01-01, 0o17]": "--protected-words wants names",
    "protected_words: ['null', 1, 1.0, 1e5, 2024-01-01, 0o17, 0x1F, 1:30, off]": (
        "protected_words", ("null", "1", "1.0", "1e5", "2024-01-01", "0o17", "0x1F", "1:30", "off"),
    ),
    "label_column: 2024-99-99": ("label_column", "2024-99-99"),
    "label_column: on": ("label_column", "on"),
    "label_column: 'null'": ("label_column", "null"),
    "label_column: null": ("label_column", None),
    "label_column: ~": ("label_column", None),
    "label_column:": ("label_column", None),
    "model: 012": ("model", "012"),
    "model: 1_000": ("model", "1_000"),
    "lr: 1e-4": ("lr", 1e-4),
    "lr: .5": ("lr", 0.5),
    "lr: 1:30": "--lr wants a number",
    "lr: true": "--lr wants a number",
    "batch_size: 8.0": ("batch_size", 8),
    "batch_size: 1e2": ("batch_size", 100),
    "batch_size: 0o17": "--batch-size wants a whole number",
    "batch_size: 1:30": "--batch-size wants a whole number",
    "batch_size: null": "gives batch_size no value",
    "batch_size: [8]": "--batch-size wants a whole number",
    "layers: [0, 2]": ("layers", (0, 2)),
    "layers: 0,2": ("layers", (0, 2)),
    "layers: 3": ("layers", 3),
    "layers: ~": ("layers", None),
    "methods: none": ("methods", ()),
    "methods: []": ("methods", ()),
    "methods:": "gives methods no value",
    "regrow: yes": ("regrow", True),
    "regrow: Off": ("regrow", False),
    "regrow: 1": "--regrow wants true or false",
    "regrow: null": "gives regrow no value",
    "model: {[a]: b}": "--model wants text",
}  # fmt: skip


@pytest.mark.parametrize("line", YAML_TEXTS)
def test_what_a_yaml_scalar_is_its_setting_decides(line: str, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(line + "\n")
    wanted = YAML_TEXTS[line]
    if isinstance(wanted, str):
        with pytest.raises(InputError, match=wanted):
            Recipe.from_file(tmp_path / "r.yaml")
    else:
        assert getattr(Recipe.from_file(tmp_path / "r.yaml"), wanted[0]) == wanted[1]


OTHER_VALUES: dict[str, Any] = {
    "dataset": "a/b:no@1e5", "train_split": "train[:90%]", "validation_split": "no",
    "layers": (3, 1), "methods": ("mp", "qat"), "text_columns": ("no", "2:4"), "pattern": "2:4", "sparsity": 0.25,
    "protected_words": ("off", "1e5", "null", "~"), "label_column": "2024-01-01", "data_dir": "0o17", "lr": 1e-7,
    "augment_alpha": 0.25, "smooth": 0.25, "class_weights": ("no=1.5", "yes=2"), "report_to": ("tensorboard",),
}  # fmt: skip


@pytest.mark.parametrize("name", Recipe.settings())
def test_every_setting_reads_back_from_both_kinds_of_file(name: str, tmp_path: Path) -> None:
    described, default = Recipe.settings()[name], getattr(Recipe(), name)
    value = OTHER_VALUES.get(name)
    if value is None and described.choices:
        value = next(choice for choice in described.choices if choice != default)
    if value is None:
        value = {bool: not default, int: (default or 0) + 5, float: 0.375, type(None): "7"}[type(default)]
    recipe = Recipe().replace(**{name: value})
    value = getattr(recipe, name)
    assert value != default
    toml = recipe.to_toml() if name != "out" else f'out = "{value}"\n'
    (tmp_path / "r.toml").write_text(toml, encoding="utf-8")
    import yaml

    shown = list(value) if isinstance(value, tuple) else value
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({name: shown}), encoding="utf-8")
    # as a person writes it, without quotes
    plain = f"[{', '.join(map(repr, shown))}]" if isinstance(shown, list) else str(shown)
    (tmp_path / "plain.yml").write_text(f"{name}: {plain}\n", encoding="utf-8")
    for file in ("r.toml", "r.yaml", "plain.yml"):
        assert Recipe.from_file(tmp_path / file) == recipe, file


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


def test_a_recipe_of_an_older_runs_folder_means_what_it_meant(tmp_path: Path) -> None:
    """Written before there were `max_layer_sparsity`, `calibration`, `criterion`, an "auto" rate and scope."""
    younger = ("max_layer_sparsity", "calibration", "augment_alpha", "criterion")
    lines = full(lr=5e-5, scope="global").to_toml().splitlines()
    older = "\n".join(line for line in lines if not line.startswith(younger))
    (tmp_path / "recipe.toml").write_text(older + "\n", encoding="utf-8")
    recipe = Recipe.from_file(tmp_path / "recipe.toml")
    assert (recipe.lr, recipe.scope, recipe.max_layer_sparsity) == (5e-5, "global", 1.0)
    assert (recipe.calibration, recipe.augment_alpha, recipe.criterion) == ("max", None, "magnitude")
    assert (recipe.calibration_rows, recipe.calibration_data, recipe.smooth) == (256, "train", None)
    (tmp_path / "own.toml").write_text('scope = "global"\nsparsity = 0.8\n')
    # A setting that a run does not use has its default, so that the run can be continued.
    lines = full(methods="qat").resolved().to_toml().splitlines()
    (tmp_path / "dense.toml").write_text("\n".join(line for line in lines if not line.startswith("criterion")))
    assert Recipe.from_file(tmp_path / "dense.toml").differences(full(methods="qat").resolved()) == []
    own = Recipe.from_file(tmp_path / "own.toml")
    assert own.max_layer_sparsity == Recipe().max_layer_sparsity == 0.99
    assert own.criterion == Recipe().criterion == "auto"


@pytest.mark.parametrize(
    ("changes", "rows"),
    [
        ({"activation": "static"}, 64),  # 8 batches, as it was before the number could be given
        ({"activation": "static", "methods": "kd"}, 256),
        ({"activation": "dynamic"}, 256),
    ],
    ids=str,
)
def test_an_older_run_was_calibrated_on_8_batches(changes: dict[str, Any], rows: int, tmp_path: Path) -> None:
    lines = full(batch_size=8, **changes).resolved().to_toml().splitlines()
    kept = [line for line in lines if not line.startswith(("calibration_rows", "calibration_data"))]
    (tmp_path / "recipe.toml").write_text("\n".join(kept) + "\n", encoding="utf-8")
    recipe = Recipe.from_file(tmp_path / "recipe.toml")
    assert recipe.calibration_rows == rows
    assert recipe.calibration == full().calibration  # the run knew this one
