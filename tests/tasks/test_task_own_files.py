"""The user's own CSV, TSV and JSON Lines files: what is inferred from them, and what is said of bad ones."""

import json
from pathlib import Path

import pytest

from sparseq.errors import InputError
from sparseq.tasks import GLUE, Data, Task, load_data


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def load(path: Path, **settings: object) -> Data:
    return load_data("custom", train_file=path, validation_file=path, **settings)  # type: ignore[arg-type]


def rows_of(data: Data) -> list[dict[str, object]]:
    assert data.train is not None
    return list(data.train)


@pytest.fixture(params=["csv", "tsv", "jsonl"])
def reviews(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    rows = [("good, very good", "pos"), ('so "bad"', "neg"), ("naïve\nand long", "pos")]
    path = tmp_path / f"reviews.{request.param}"
    if request.param == "jsonl":
        return write(path, "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows))
    comma = "," if request.param == "csv" else "\t"
    doubled = [(text.replace('"', '""'), label) for text, label in rows]
    return write(path, f"text{comma}label\n" + "".join(f'"{text}"{comma}{label}\n' for text, label in doubled))


def test_names_are_numbered_in_sorted_order(reviews: Path) -> None:
    data = load(reviews)
    assert data.task == Task("custom", ("text",), "label", 2, ("neg", "pos"), metrics=("accuracy", "f1"))
    assert rows_of(data) == [
        {"text_a": "good, very good", "label": 1},
        {"text_a": 'so "bad"', "label": 0},
        {"text_a": "naïve\nand long", "label": 1},
    ]
    assert list(data.validations) == ["validation"]


def test_whole_numbers_are_classes(tmp_path: Path) -> None:
    data = load(write(tmp_path / "a.csv", "sentence,label\na,0\nb,2\nc,1\n"))
    assert data.task == Task("custom", ("sentence",), num_labels=3, metrics=("accuracy", "macro_f1"))
    assert [row["label"] for row in rows_of(data)] == [0, 2, 1]


def test_numbers_with_a_point_are_regression(tmp_path: Path) -> None:
    data = load(write(tmp_path / "a.csv", "sentence1,sentence2,label\na,b,0.5\nc,d,-3\ne,f,1e3\n"))
    assert data.task.is_regression
    assert data.task.metrics == data.task.score_metrics == ("pearson", "spearman")
    assert rows_of(data)[1] == {"text_a": "c", "text_b": "d", "label": -3.0}
    assert [row["label"] for row in rows_of(data)] == [0.5, -3.0, 1000.0]


def test_json_labels_keep_their_kind(tmp_path: Path) -> None:
    lines = ['{"text": "a", "label": true, "extra": 1}', "", '{"label": false, "text": "b"}']
    data = load(write(tmp_path / "a.json", "\n".join(lines)))
    assert [row["label"] for row in rows_of(data)] == [1, 0]
    assert data.task.label_names == ("false", "true")
    floats = load(write(tmp_path / "b.jsonl", '{"text": "a", "label": 1.5}\n{"text": "b", "label": 2}\n'))
    assert floats.task.is_regression


def test_named_columns_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("review,stars,id\r\nfine,1,7\r\nbad,0,8\r\n".encode("utf-8-sig"))
    data = load(path, text_columns=["review"], label_column="stars")
    assert (data.task.columns, data.task.label_column) == (("review",), "stars")
    assert rows_of(data) == [{"text_a": "fine", "label": 1}, {"text_a": "bad", "label": 0}]
    assert load(path, text_columns="review", label_column="stars").task == data.task


def test_a_pair_is_preferred_to_one_text(tmp_path: Path) -> None:
    data = load(write(tmp_path / "a.csv", "question,sentence,label\nq,s,0\nr,t,1\n"))
    assert data.task.columns == ("question", "sentence")


def test_a_glue_task_on_own_files_keeps_its_labels_and_metrics(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "question1,question2,label\na,b,duplicate\nc,d,0\n")
    data = load_data("QQP", train_file=path, validation_file=path)
    assert data.task == GLUE["qqp"]
    assert [row["label"] for row in rows_of(data)] == [1, 0]


def test_the_training_file_numbers_the_names(tmp_path: Path) -> None:
    train = write(tmp_path / "train.csv", "text,label\na,low\nb,mid\nc,high\n")
    validation = write(tmp_path / "validation.csv", "text,label\na,mid\n")
    data = load_data("custom", train_file=train, validation_file=validation, with_train=False)
    assert data.train is None
    assert list(data.validations["validation"]["label"]) == [2]
    kept = Task.from_dict(json.loads(json.dumps(data.task.as_dict())))
    again = load_data(kept, validation_file=validation, with_train=False)
    assert (again.task, list(again.validations["validation"]["label"])) == (data.task, [2])


def test_subsets_are_seeded_nested_and_in_file_order(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,label\n" + "".join(f"{row},{row % 2}\n" for row in range(100)))

    def chosen(**settings: int) -> list[int]:
        return [int(str(row["text_a"])) for row in rows_of(load(path, **settings))]

    few, more = chosen(max_train_rows=10), chosen(max_train_rows=20)
    assert few == sorted(few) == chosen(max_train_rows=10, seed=0)
    assert len(few) == 10 and set(few) < set(more) and few != list(range(10))
    assert chosen(max_train_rows=10, seed=1) != few
    assert chosen(max_train_rows=1000) == list(range(100))
    scored = [list(load(path, max_validation_rows=7, seed=seed).validations["validation"]["text_a"]) for seed in (0, 1)]
    assert scored[0] == scored[1] and len(scored[0]) == 7


BAD_FILES = [
    ("a.csv", "", r"a\.csv is empty: expected rows"),
    ("a.csv", "text,label\n", r"a\.csv holds no rows of data"),
    ("a.csv", "text,grade\na,1\n", r"column 'label' is missing in .*a\.csv: its columns are text, grade"),
    (
        "a.csv",
        "body,label\na,1\n",
        r"none of the usual text columns, .*: its columns are body, label; name one or two columns with --text-columns",
    ),
    (
        "a.csv",
        "text,label\na,1\nb, c,0\n",
        r"line 3 of .*a\.csv has 3 fields where the header has 2: a comma inside a text",
    ),
    ("a.tsv", "text\tlabel\na\n", r"line 2 of .*a\.tsv has 1 fields where the header has 2: a tab inside a text"),
    (
        "a.csv",
        'text,label\n"a,1\nb,0\n',
        r"line 2 of .*a\.csv cannot be read \(unexpected end of data, read on to line 3\)",
    ),
    (
        "a.tsv",
        'text\tlabel\n"a" b\t1\nb\t0\n',
        r"line 2 of .*a\.tsv cannot be read .*: a text that begins with a double",
    ),
    ("a.csv", "text,label\na,\n", r"line 2 of .*a\.csv has no label in column 'label': every row needs one"),
    (
        "a.csv",
        "text,label\na,0\nb,1\nc,O\n",
        r"label 'O' in line 4 of .*a\.csv is no number, unlike most: column 'label'",
    ),
    (
        "a.csv",
        "text,label\na,x\nb,y\nc,0\n",
        r"label '0' in line 4 of .*a\.csv is a number, unlike most: column 'label'",
    ),
    ("a.csv", "text,label\na,0.5\nb,nan\n", r"label 'nan' in line 3 of .*a\.csv is no number"),
    (
        "a.csv",
        "text,label\na,1e999\nb,0.5\n",
        r"label '1e999' in line 2 .* out of range: task 'custom' takes a finite number",
    ),
    (
        "a.csv",
        "text,label\na,1\nb,1\n",
        r"every row of .*a\.csv has the label '1': column 'label' needs at least two classes",
    ),
    ("a.jsonl", '{"text": "a", "label": 0}\n{"text"\n', r"line 2 of .*a\.jsonl is not JSON \("),
    ("a.json", '[{"text": "a", "label": 0},\n 3]', r"line 2 of .*a\.json is no JSON object"),
    ("a.jsonl", '{"text": "a", "label": null}', r"line 1 of .*a\.jsonl has no label"),
    (
        "a.jsonl",
        '{"text": "a", "label": [1]}',
        r"line 1 of .*a\.jsonl has \[1\] in 'label': expected one number or name",
    ),
    ("a.jsonl", '{"text": "a", "label": 0}\n{"label": 1}', r"line 2 of .*a\.jsonl has no value in column 'text'"),
    ("a.jsonl", '{"text": 7, "label": 0}', r"line 1 of .*a\.jsonl has 7 in column 'text': expected a text"),
    ("a.xlsx", "x", r"a\.xlsx is a spreadsheet, which is not read: save it there as CSV"),
    ("a.txt", "x", r"a\.txt has the suffix '\.txt': expected one of \.csv, \.tsv, \.jsonl"),
]


@pytest.mark.parametrize(("name", "text", "sentence"), BAD_FILES)
def test_bad_files_get_one_sentence(tmp_path: Path, name: str, text: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence) as caught:
        load(write(tmp_path / name, text))
    assert "\n" not in str(caught.value)


def test_validation_labels_must_be_known_from_training(tmp_path: Path) -> None:
    train = write(tmp_path / "train.csv", "text,label\na,neg\nb,pos\n")
    validation = write(tmp_path / "validation.csv", "text,label\na,pos\nb,neutral\n")
    sentence = r"label 'neutral' in line 3 of .*validation\.csv is none of the 2 classes of the training rows, neg, pos"
    with pytest.raises(InputError, match=sentence):
        load_data("custom", train_file=train, validation_file=validation)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({}, "task 'custom' has no data of its own"),
        ({"data_dir": "."}, "--data-dir holds GLUE's tasks, and the task is 'custom'"),
        ({"train_file": "a.csv"}, "own files need --validation-file too"),
        ({"validation_file": "a.csv"}, "own files need --train-file too"),
        ({"train_file": "a.csv", "validation_file": "a.csv", "data_dir": "."}, "both given"),
        ({"text_columns": ["text"]}, "name columns of own files"),
        ({"train_file": "no.csv", "validation_file": "no.csv"}, r"there is no file no\.csv"),
        ({"train_file": "d.csv", "validation_file": "d.csv"}, r"d\.csv cannot be read \(Is a directory\)"),
        ({"max_train_rows": 0}, "max_train_rows is 0"),
        ({"train_file": "a.csv", "validation_file": "a.csv", "text_columns": ["label"]}, "both as text and as label"),
        (
            {"train_file": "a.csv", "validation_file": "a.csv", "text_columns": ["text", "text"]},
            "expected 1 or 2 different",
        ),
        ({"train_file": "a.csv", "validation_file": "a.csv", "text_columns": []}, "named as nothing"),
    ],
)
def test_bad_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, object], sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.csv", "text,label\na,0\nb,1\n")
    (tmp_path / "d.csv").mkdir()
    with pytest.raises(InputError, match=sentence):
        load_data("custom", **settings)  # type: ignore[arg-type]


def test_a_glue_task_needs_its_own_number_of_texts(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,label\na,0\nb,1\n")
    with pytest.raises(InputError, match=r"named as 'text': expected 2 different"):
        load_data("rte", train_file=path, validation_file=path, text_columns=["text"])
