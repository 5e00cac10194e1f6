"""What labels say of a task, what is refused, and the summary of what was understood."""

import re
from pathlib import Path

import pytest

from sparseq.errors import InputError
from sparseq.tasks import CUSTOM, GLUE, Data, Task, load_data
from sparseq.tasks.labels import LABEL_KINDS, LARGEST, whole
from sparseq.train import Recipe


def table(path: Path, labels: list[str]) -> Path:
    path.write_text("text,label\n" + "".join(f"text {row},{label}\n" for row, label in enumerate(labels)))
    return path


def load(folder: Path, train: list[str], validation: list[str] | None = None, **settings: object) -> Data:
    files = {
        "train_file": table(folder / "train.csv", train),
        "validation_file": table(folder / "dev.csv", train if validation is None else validation),
    }
    return load_data("custom", **files, **settings)  # type: ignore[arg-type]


CLASSES: dict[str, tuple[list[str], tuple[str, ...] | None, list[int]]] = {
    "0 and 1": (["1", "0", "1"], None, [1, 0, 1]),
    "0 to 2": (["2", "0", "1"], None, [2, 0, 1]),
    "floats of a table with gaps": (["1.0", "0.0", "1.0"], None, [1, 0, 1]),
    "floats and integers": (["1", "0.0", "1."], None, [1, 0, 1]),
    "stars": (["5", "1", "3", "2", "4"], ("1", "2", "3", "4", "5"), [4, 0, 2, 1, 3]),
    "stars as floats": (["5.0", "1.0", "3.0"], ("1", "3", "5"), [2, 0, 1]),
    "by value, not as text": (["10", "9", "-1"], ("-1", "9", "10"), [2, 1, 0]),
    "two signs": (["+1", "-1", "1"], ("-1", "1"), [1, 0, 1]),
    "leading zeros": (["01", "00", "1"], None, [1, 0, 1]),
    "negative zero": (["-0", "0.0", "1"], None, [0, 0, 1]),
    "many digits": (["9" * 30, "8" * 30], ("8" * 30, "9" * 30), [1, 0]),
    "names": (["pos", "neg", " pos "], ("neg", "pos"), [1, 0, 1]),
    "truth values as Python writes them": (["True", "False"], ("False", "True"), [1, 0]),
    "names with digits": (["3 stars", "1 star"], ("1 star", "3 stars"), [1, 0]),
}


@pytest.mark.parametrize("kind", CLASSES)
def test_classes(kind: str, tmp_path: Path) -> None:
    labels, names, numbers = CLASSES[kind]
    data = load(tmp_path, labels)
    count = len(set(numbers))
    metrics = ("accuracy", "f1" if count == 2 else "macro_f1")
    assert data.task == Task(CUSTOM, ("text",), "label", count, names, metrics=metrics)
    assert data.train is not None and list(data.train["label"]) == numbers
    shown = ", ".join(names or map(str, range(count)))
    assert f"{count} classes: {shown} (column 'label')" in data.summary()
    # A finished run keeps its task as JSON, and is scored on other files by it.
    again = load_data(
        Task.from_dict(data.task.as_dict()), validation_file=tmp_path / "dev.csv", with_train=False
    ).validations["validation"]
    assert list(again["label"]) == numbers


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (["0.5", "1", "5"], "regression, 0.5 to 5"),
        (["-3", "0", "1e-1"], "regression, -3 to 0.1"),
        (["1.5", "1.5"], "regression, 1.5 to 1.5"),
        ([".5", "2."], "regression, 0.5 to 2"),
    ],
)
def test_numbers_that_are_not_whole_make_a_regression(labels: list[str], told: str, tmp_path: Path) -> None:
    data = load(tmp_path, labels)
    assert data.task.is_regression
    assert data.train is not None and list(data.train["label"]) == [float(label) for label in labels]
    assert f"{told} (column 'label')" in data.summary()


@pytest.mark.parametrize(
    ("labels", "kind", "numbers", "told"),
    [
        (["5", "1", "3"], "regression", [5.0, 1.0, 3.0], "regression, 1 to 5"),
        (["1", "0", "1.0"], "regression", [1.0, 0.0, 1.0], "regression, 0 to 1"),
        (["0.5", "2", "2.5"], "regression", [0.5, 2.0, 2.5], "regression, 0.5 to 2.5"),
        (["2.5", "0.5", "1.0"], "classes", [2, 0, 1], "3 classes: 0.5, 1, 2.5"),
        (["5", "1", "1.0"], "classes", [1, 0, 0], "2 classes: 1, 5"),
        (["b", "a", "b"], "classes", [1, 0, 1], "2 classes: a, b"),
    ],
)
def test_what_labels_are_can_be_said(
    labels: list[str], kind: str, numbers: list[float], told: str, tmp_path: Path
) -> None:
    data = load(tmp_path, labels, label_kind=kind)
    assert data.train is not None and list(data.train["label"]) == numbers
    assert data.task.is_regression is (kind == "regression")
    assert f"{told} (column 'label')" in data.summary()
    again = load_data(
        Task.from_dict(data.task.as_dict()), validation_file=tmp_path / "dev.csv", with_train=False
    ).validations["validation"]
    assert list(again["label"]) == numbers


def test_a_kind_of_labels_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"label 'b' in line 2 of .*train\.csv is no number, and a regression"):
        load(tmp_path, ["b", "a"], label_kind="regression")
    with pytest.raises(InputError, match="label_kind is 'stars': expected one of auto, classes, regression"):
        load(tmp_path, ["1", "0"], label_kind="stars")
    with pytest.raises(InputError, match="the labels of task 'sst2' are known: --label-kind is for your own files"):
        load_data("sst2", data_dir=tmp_path, label_kind="regression")
    assert Recipe.settings()["label_kind"].choices == LABEL_KINDS


REFUSED: dict[str, tuple[list[str], list[str] | None, str]] = {
    "numbers among names": (["pos", "neg", "1"], None, r"label '1' in line 4 of .*train\.csv is a number, unlike most"),
    "names among numbers": (["0", "1", "x"], None, r"label 'x' in line 4 of .*train\.csv is no number, unlike most"),
    "names among real numbers": (["0.5", "1", "nan"], None, r"label 'nan' in line 4 .* is no number, unlike most"),
    "names, then numbers": (["neg", "pos"], ["1", "0"], r"label '1' in line 2 of .*dev\.csv is a number, where they"),
    "numbers, then names": (["0", "1"], ["pos"], r"label 'pos' in line 2 of .*dev\.csv is a name, where the training"),
    "stars, then numbers from 0": (
        ["1", "2", "3"],
        ["1", "0"],
        r"label '0' in line 3 .*none of the 3 classes .*2, 3",
    ),
    "an unseen name": (["a", "b"], ["b", "c"], r"label 'c' in line 3 of .*dev\.csv is none of the 2 classes .*, a, b"),
    "another spelling": (["Pos", "Neg"], ["pos"], r"label 'pos' in line 2 of .*dev\.csv is none of the 2 classes"),
    "a real number for a class": (
        ["0", "1"],
        ["0.5"],
        r"label '0\.5' in line 2 of .*dev\.csv is none of the 2 classes",
    ),
    "a name for a number": (["0.5", "1"], ["low"], r"label 'low' in line 2 of .*dev\.csv is no number: .*finite"),
    "one class": (["1.0", "1"], None, r"every row of .*train\.csv has the label '1\.0'"),
    "infinite": (["0.5", "1e999"], None, r"label '1e999' in line 3 of .* takes a finite number"),
    "decimal commas": (['"0,5"', '"1,25"'], None, r"label '0,5' in line 2 of .*is a number with a decimal comma"),
    "beyond fp32": (["0.5", "1e30"], None, r"label '1e30' in line 3 of .* magnitude, .*: scale the labels"),
    "all beyond fp32": (["-1e30", "1e30"], None, r"label '-1e30' in line 2 of .* magnitude, .*: scale the labels"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_labels_that_are_refused(kind: str, tmp_path: Path) -> None:
    train, validation, sentence = REFUSED[kind]
    with pytest.raises(InputError, match=sentence) as caught:
        load(tmp_path, train, validation)
    assert "\n" not in str(caught.value) and "--lr" not in str(caught.value)


def test_the_largest_label_that_is_taken(tmp_path: Path) -> None:
    data = load(tmp_path, ["0.5", f"{LARGEST:g}"])
    assert any("scale them" in sentence for sentence in data.summary())
    assert not any("scale them" in sentence for sentence in load(tmp_path, ["0.5", "5"]).summary())


@pytest.mark.parametrize("name", ["sst2", "mrpc", "qnli"])
def test_a_glue_tasks_own_files_take_names_and_numbers(name: str, tmp_path: Path) -> None:
    task = GLUE[name]
    assert task.label_names is not None
    path = tmp_path / "a.csv"
    texts = ",".join(["x"] * len(task.columns))
    written = [*task.label_names, "1.0", "0"]
    path.write_text(f"{','.join(task.columns)},label\n" + "".join(f"{texts},{label}\n" for label in written))
    data = load_data(name, train_file=path, validation_file=path)
    assert list(data.validations["validation"]["label"]) == [0, 1, 1, 0]
    path.write_text(f"{','.join(task.columns)},label\n{texts},0.5\n")
    with pytest.raises(InputError, match=rf"label '0\.5' in line 2 of .* out of range: task '{name}' takes 0 to 1"):
        load_data(name, train_file=path, validation_file=path)


def test_summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("train.csv").write_text(
        "text;label\n" + "".join(f"{'' if row == 3 else 'x'};{row % 3}\n" for row in range(1234))
    )
    Path("dev.tsv").write_text("text\tlabel\nx\t1\n")
    data = load_data("custom", train_file="train.csv", validation_file="dev.tsv", max_train_rows=100)
    assert data.summary() == [
        "1,234 training rows from train.csv, of which 100 are taken (separated by semicolons; 1 without text)",
        "1 validation row from dev.tsv",
        "text in column 'text'",
        "3 classes: 0, 1, 2 (column 'label')",
        "metrics: accuracy (the score), macro_f1 (the mean over the classes)",
    ]
    elsewhere = load_data(data.task, validation_file=tmp_path / "dev.tsv", with_train=False)
    assert elsewhere.summary()[0] == "1 validation row from dev.tsv"


def test_a_summary_of_many_classes_is_short(tmp_path: Path) -> None:
    data = load(tmp_path, [str(row) for row in range(50)])
    assert "50 classes: 0, 1, 2, 3, 4, 5, 6, 7, ... (column 'label')" in data.summary()


def test_the_summary_says_which_f1(tmp_path: Path) -> None:
    assert load(tmp_path, ["neg", "pos"]).summary()[-1] == "metrics: accuracy (the score), f1 of class pos"


UNLABELLED: dict[str, tuple[str, str, list[int]]] = {
    "no column": ("text\na\nb\n", "text,label\nx,pos\ny,neg\n", [-100, -100]),
    "an empty column": ("text,label\na,\nb,\n", "text,label\nx,pos\ny,neg\n", [-100, -100]),
    "some labels": ("text,label\na,\nb,pos\n", "text,label\nx,mid\ny,neg\n", [-100, 2]),
    "all labels": ("text,label\na,neg\nb,pos\n", "text,label\nx,pos\n", [0, 1]),
    "numbers": ("text,label\na,\nb,5\n", "text,label\nx,1\ny,5\n", [-100, 1]),
}


@pytest.mark.parametrize("kind", UNLABELLED)
def test_training_rows_without_labels(kind: str, tmp_path: Path) -> None:
    train, validation, numbers = UNLABELLED[kind]
    (tmp_path / "train.csv").write_text(train)
    (tmp_path / "dev.csv").write_text(validation)
    files = {"train_file": tmp_path / "train.csv", "validation_file": tmp_path / "dev.csv"}
    data = load_data("custom", **files, allow_unlabelled=True)  # type: ignore[arg-type]
    assert data.train is not None and list(data.train["label"]) == numbers
    missing = numbers.count(-100)
    assert (f"({missing} unlabelled)" in data.summary()[0]) is bool(missing)
    if missing:
        with pytest.raises(InputError, match=r"has no label|'label' is missing in .*train\.csv"):
            load_data("custom", **files)  # type: ignore[arg-type]


def test_rows_to_validate_on_need_labels_always(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,label\na,0\nb,1\n")
    (tmp_path / "dev.csv").write_text("text,label\na,0\nb,\n")
    files = {"train_file": tmp_path / "train.csv", "validation_file": tmp_path / "dev.csv"}
    with pytest.raises(InputError, match=r"line 3 of .*dev\.csv has no label"):
        load_data("custom", **files, allow_unlabelled=True)  # type: ignore[arg-type]


def test_a_regression_on_rows_without_labels(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text\na\nb\n")
    (tmp_path / "dev.csv").write_text("text,label\na,0.5\nb,3\n")
    files = {"train_file": tmp_path / "train.csv", "validation_file": tmp_path / "dev.csv"}
    data = load_data("custom", **files, allow_unlabelled=True)  # type: ignore[arg-type]
    assert data.train is not None and all(label != label for label in data.train["label"])
    assert any(re.match(r"regression, 0\.5 to 3 ", sentence) for sentence in data.summary())


WARNED: dict[str, tuple[list[str], list[str] | None, str | None]] = {
    "another case": (["Pos", "pos", "neg"], None, "classes 'Pos' and 'pos' are written almost alike: are they one?"),
    "a character that does not show": (["a\u200b", "a", "b"], None, "'a' and 'a\\u200b' are written almost alike"),
    "a composed character": (["caf\u00e9", "cafe\u0301", "b"], None, "are written almost alike"),
    "two spaces": (["very  good", "very good", "bad"], None, "are written almost alike"),
    "NaN among names": (["NaN", "a", "b"], None, "class 'NaN' may mean that there is no label"),
    "none among names": (["a", "b", "none"], None, "class 'none' may mean that there is no label"),
    "ids": ([str(number) for number in range(50)], None, "50 classes are many for 50 rows: column 'label' may hold n"),
    "dates": ([f"2020-01-{day}" for day in range(1, 31)], None, "column 'label' may hold no classes"),
    "one class to validate on": (["0", "1"], ["1", "1"], "all validation rows have one label: the metrics mean little"),
    "one number to validate on": (["0.5", "1"], ["2", "2"], "all validation rows have one label"),
    "nothing odd": (["Pos", "neg"], ["neg", "Pos"], None),
    "nothing odd in numbers": (["1", "2", "3"], None, None),
}  # fmt: skip


@pytest.mark.parametrize("kind", WARNED)
def test_labels_that_are_worth_a_word(kind: str, tmp_path: Path) -> None:
    train, validation, sentence = WARNED[kind]
    said = load(tmp_path, train, validation).summary()
    marks = ("almost alike", "may mean", "are many", "have one label")
    assert [line for line in said if any(mark in line for mark in marks)] == (
        [] if sentence is None else [line for line in said if sentence in line][:1]
    )
    assert sentence is None or any(sentence in line for line in said)


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["1.000000000000000000e+00", "0.000000000000000000e+00"], None),  # as numpy.savetxt writes them
        (["1e0", "2E0", "1"], ("1", "2")),
        (["0E-10", "1.0000000000"], None),  # as a decimal of Parquet is written
        (["1.5e1", "20"], ("15", "20")),
    ],
)
def test_whole_numbers_with_an_exponent_are_classes(
    labels: list[str], names: tuple[str, ...] | None, tmp_path: Path
) -> None:
    task = load(tmp_path, labels).task
    assert (task.num_labels, task.label_names) == (2, names)


@pytest.mark.parametrize("label", ["1.5e0", "1e-3", "1e15", "1e-400", "1" * 70 + "e0"])
def test_other_numbers_with_an_exponent_are_no_classes(label: str) -> None:
    assert whole(label) is None


def test_a_missing_label_in_json_is_missing(tmp_path: Path) -> None:
    """Python and pandas write NaN for it."""
    rows = '{"text": "a", "label": NaN}\n{"text": "b", "label": "x"}\n{"text": "c", "label": "y"}\n'
    (tmp_path / "a.jsonl").write_text(rows)
    with pytest.raises(InputError, match=r"line 1 of .*a\.jsonl has no label"):
        load_data("custom", train_file=tmp_path / "a.jsonl", validation_file=tmp_path / "a.jsonl")


def test_a_long_name_is_shown_by_its_begin(tmp_path: Path) -> None:
    said = load(tmp_path, ["a" * 5000, "b" * 5000]).summary()
    assert max(map(len, said)) < 300 and any(f"classes: {'a' * 57}..., {'b' * 57}..." in line for line in said)
