"""Predictions of a finished run: line by line and aligned, from files, and as GLUE takes them."""

import csv
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from glue_files import write_glue
from refusals import refused

from sparseq.cli import main
from sparseq.errors import InputError
from sparseq.tasks import GLUE, load_data
from sparseq.train import Recipe, RunResult, compress, evaluate, predict
from sparseq.train.predicting import Predictor, predict_file
from tests.conftest import sentences, write_rows


@pytest.fixture(scope="module")
def single(tiny_model_dir: Path, tiny_csv: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on one text a row."""
    out = tmp_path_factory.mktemp("single") / "out"
    recipe = {"model": str(tiny_model_dir), "methods": "qat", "epochs": 1, "max_length": 16, "out": str(out)}
    compress(Recipe.from_dict({**recipe, "train_file": str(tiny_csv[0]), "validation_file": str(tiny_csv[1])}))
    return out


@pytest.fixture(scope="module")
def paired(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on pairs, of SST-2's own labels: MRPC by own files."""
    folder = tmp_path_factory.mktemp("paired")
    rows: list[dict[str, object]] = [
        {"sentence1": one["sentence"], "sentence2": "the film", "label": one["label"]} for one in sentences(24, 0)
    ]
    file = str(write_rows(folder / "rows.csv", rows))
    recipe = {"model": str(tiny_model_dir), "methods": "none", "epochs": 1, "max_length": 16, "task": "mrpc"}
    compress(Recipe.from_dict({**recipe, "train_file": file, "validation_file": file, "out": str(folder / "out")}))
    return folder / "out"


def stdin(monkeypatch: pytest.MonkeyPatch, content: bytes, encoding: str = "utf-8") -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), encoding=encoding))


def given(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    capsys.readouterr()
    assert main(list(map(str, argv))) == 0
    return capsys.readouterr().out


ALIGNED: dict[str, tuple[bytes, list[str | None]]] = {
    "blank lines": (
        b"good film\n\nbad film\n  \n\nthe plot\n",
        ["good film", None, "bad film", None, None, "the plot"],
    ),
    "a blank line first": (b"\ngood film\n", [None, "good film"]),
    "blank lines alone": (b"\n\n", [None, None]),
    "nothing": (b"", []),
    "no last line end": (b"good film\nbad film", ["good film", "bad film"]),
    "a tab in a text": (b"good\tfilm\nbad film\n", ["good\\tfilm", "bad film"]),
    "tabs around": (b"\tgood film\t\n", ["\\tgood film\\t"]),
    "Windows": (b"good film\r\n\r\nbad film\r\n", ["good film", None, "bad film"]),
    "old Mac": (b"good film\rbad film\r", ["good film", "bad film"]),
    "byte-order mark": (b"\xef\xbb\xbfgood film\n", ["good film"]),
    "other separators": ("good\u2028film\nbad\x0cfilm\n".encode(), ["good\\u2028film", "bad\\x0cfilm"]),
}


@pytest.mark.parametrize("kind", ALIGNED)
def test_line_n_of_the_output_is_that_of_line_n_of_the_input(
    kind: str, single: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    content, texts = ALIGNED[kind]
    stdin(monkeypatch, content)
    lines = given(capsys, "predict", single).split("\n")[:-1]
    assert [line.split("\t")[2] if line else None for line in lines] == texts
    stdin(monkeypatch, content)
    objects = [json.loads(line) for line in given(capsys, "predict", single, "--json").split("\n")[:-1]]
    assert [one["index"] for one in objects] == [str(row) for row in range(len(texts))]
    assert [one["label"] for one in objects] == [line.split("\t")[0] if line else None for line in lines]


def test_pairs_line_by_line(paired: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    stdin(monkeypatch, b"good film\tthe film\n\nbad\tthe film\n")
    first, blank, last = given(capsys, "predict", paired).split("\n")[:-1]
    assert (
        blank == ""
        and first.split("\t")[2:] == ["good film", "the film"]
        and last.split("\t")[2:] == ["bad", "the film"]
    )
    assert first.split("\t")[0] in ("equivalent", "not_equivalent")
    assert given(capsys, "predict", paired, "good film", "--text-pair", "the film") == first + "\n"


BAD_LINES: dict[str, tuple[bytes, str]] = {
    "no tab": (b"a\tb\n\nalone\n", "line 3 of stdin"),
    "two tabs": (b"a\tb\nc\td\te\n", "line 2 of stdin"),
    "a bad byte": (b"a\tb\nc\td\n\ncaf\xe9\tb\n", "line 4 of stdin is not UTF-8 text"),
    "half a pair": (b"a\tb\n\xed\xa0\x80\tc\n", "line 2 of stdin is not UTF-8 text"),
}


@pytest.mark.parametrize("kind", BAD_LINES)
def test_a_bad_line_is_named(
    kind: str, paired: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    content, sentence = BAD_LINES[kind]
    stdin(monkeypatch, content)
    assert sentence in refused(capsys, "predict", paired)


def test_stdin_in_its_own_encoding(
    single: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stdin(monkeypatch, "café\n".encode("latin-1"), "latin-1")
    assert given(capsys, "predict", single).split("\t")[2] == "café\n"


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--text-pair", "x"], "--text-pair goes with one text"),
        (["a", "b", "--text-pair", "x"], "--text-pair goes with one text"),
        (["a", "--file", "x.csv"], "texts and --file are given"),
        (["--file", "x.csv", "--data-dir", "x"], "--file and --data-dir are given"),
        (["--text-columns", "x"], "--text-columns names columns of --file"),
        (["--submission", "x"], "--submission is made from GLUE's test files"),
        (["--data-dir", "x"], "give --submission"),
        (["--data-dir", "x", "--submission", __file__], "is a file: give a folder"),
        (["--data-dir", "x", "--submission", "y"], "task 'custom' is none of GLUE's"),
        (["a", "--json", "--out", "x.tsv"], "give --out the suffix .jsonl"),
        (["a", "--out", "x.txt"], "the suffix '.txt': predictions are written as .tsv, .csv, .jsonl"),
        (["a", "--out", "missing/x.tsv"], "is in a folder that is not there"),
        (["a", "--text-pair", "b"], "task 'custom' reads one text, not 2, in text 1"),
        (["a", "\udcff"], "text 2 is not valid Unicode"),
        (["--file", "missing.csv"], "there is no file missing.csv"),
        (["--file", "x.csv", "--text-columns", "a\0"], "--text-columns wants names separated by commas"),
    ],
    ids=str,
)
def test_arguments_that_are_refused(
    argv: list[str], sentence: str, single: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stdin(monkeypatch, b"")
    assert sentence in refused(capsys, "predict", single, *argv)


def test_text_of_half_a_pair_in_python(single: Path) -> None:
    with pytest.raises(InputError, match="text 2 is not valid Unicode"):
        predict(single, [("good",), ("\ud800",)])


@pytest.mark.parametrize("suffix", [".tsv", ".csv", ".jsonl"])
def test_a_files_predictions(suffix: str, single: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    texts = ["good film", "bad film", "", 'a "film", one\nof two']
    file = write_rows(tmp_path / "in.csv", [{"id": f"r{row}", "sentence": text} for row, text in enumerate(texts)])
    wanted = predict(single, [(text,) for text in texts])
    out = tmp_path / f"out{suffix}"
    assert given(capsys, "predict", single, "--file", file, "--out", out) == ""
    content = out.read_text()
    if suffix == ".jsonl":
        found = [json.loads(line) for line in content.splitlines()]
    else:
        found = list(csv.DictReader(io.StringIO(content), delimiter="\t" if suffix == ".tsv" else ","))
    assert [one["index"] for one in found] == ["r0", "r1", "r2", "r3"]
    assert [one["prediction"] for one in found] == [one.label for one in wanted]
    assert [float(one["value"]) for one in found] == pytest.approx([one.value for one in wanted], abs=1e-5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", out.name]
    printed = given(capsys, "predict", single, "--file", file, "--text-columns", " sentence ").splitlines()
    assert [line.split("\t")[0] for line in printed] == [one.label for one in wanted]


def test_the_file_that_is_read_is_not_written(single: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = write_rows(tmp_path / "a.csv", [{"sentence": "good film"}])
    before = file.read_bytes()
    assert "is the file to predict" in refused(capsys, "predict", single, "--file", file, "--out", file)
    assert file.read_bytes() == before


def test_a_table_of_predictions_has_a_place_for_blank_lines(
    single: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stdin(monkeypatch, b"good film\n\nbad film\n")
    given(capsys, "predict", single, "--out", tmp_path / "out.tsv")
    rows = [line.split("\t") for line in (tmp_path / "out.tsv").read_text().splitlines()]
    assert [row[0] for row in rows] == ["index", "0", "1", "2"] and rows[2][1:] == ["", ""] and rows[3][1] != ""


def test_a_full_disk_leaves_the_file_as_it_was(
    single: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    out = tmp_path / "out.tsv"
    out.write_text("before")
    with monkeypatch.context() as patch:
        patch.setattr("sparseq.train.predicting.write_whole", full)
        assert main(["predict", str(single), "good", "--out", str(out)]) == 1
    assert str(out) in capsys.readouterr().err and out.read_text() == "before"


def test_evaluate_as_json(single: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(given(capsys, "evaluate", single, "--json"))
    result = RunResult.from_folder(single)
    assert found == {"task": "custom", "rows": {"validation": 40}, "metrics": result.metrics, "score": result.score}
    assert set(result.metrics) == {"accuracy", "f1"} and result.score == result.metrics["accuracy"]


def test_evaluate_says_what_it_read(single: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = write_rows(tmp_path / "a.csv", [{"sentence": "the " * 40, "label": 1}, {"sentence": "film", "label": 0}])
    assert main(["evaluate", str(single), "--validation-file", str(file)]) == 0
    said = capsys.readouterr().err
    assert f"2 validation rows from {file}" in said and "2 classes: 0, 1" in said and "1 text cut at 16 tokens" in said


@pytest.mark.parametrize("name", ["mrpc", "sst2"])
def test_submission_of_a_task(
    name: str,
    paired: Path,
    make_recipe: Callable[..., Recipe],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    glue, out = write_glue(tmp_path / "glue"), tmp_path / "submission"
    run = paired
    if name == "sst2":
        source = {"train_file": None, "validation_file": None, "data_dir": str(glue)}
        run = Path(compress(make_recipe(task="sst2", methods="none", epochs=1, **source)).out)
    assert given(capsys, "predict", run, "--data-dir", glue, "--submission", out) == ""
    (written,) = out.iterdir()
    assert written.name == {"mrpc": "MRPC.tsv", "sst2": "SST-2.tsv"}[name]
    header, *rows = [line.split("\t") for line in written.read_text().split("\n")[:-1]]
    assert header == ["index", "prediction"] and [row[0] for row in rows] == ["0", "1", "2"]
    file = glue / written.stem / "test.tsv"
    labels = GLUE[name].label_names
    assert labels is not None
    predictions = predict_file(Predictor(run), file).predictions
    assert [row[1] for row in rows] == [str(labels.index(one.label)) for one in predictions]
    before = written.read_text()
    given(capsys, "predict", run, "--file", file, "--submission", out)
    assert written.read_text() == before


def test_rows_without_labels_are_learned_from_the_teacher_alone(
    make_recipe: Callable[..., Recipe], tiny_csv: tuple[Path, Path], tmp_path: Path
) -> None:
    """At a weight of 1 the labels count for nothing: with or without them, the run is the same."""
    with tiny_csv[0].open(newline="") as file:
        texts = [{"sentence": row["sentence"]} for row in csv.DictReader(file)]
    unlabelled = write_rows(tmp_path / "unlabelled.csv", texts)  # type: ignore[arg-type]
    settings = {"methods": "kd", "kd_alpha": 1, "epochs": 1}
    with_labels = compress(make_recipe(**settings, out=str(tmp_path / "a")))
    without = compress(make_recipe(**settings, train_file=str(unlabelled), out=str(tmp_path / "b")))
    assert (without.metrics, without.rows) == (with_labels.metrics, with_labels.rows)
    assert (tmp_path / "a" / "model.safetensors").stat().st_size == (
        tmp_path / "b" / "model.safetensors"
    ).stat().st_size
    text = [("good film",), ("bad film",)]
    assert predict(tmp_path / "a", text) == predict(tmp_path / "b", text)
    for refused_settings in ({"methods": "kd", "kd_alpha": 0.9}, {"methods": "qat", "kd_alpha": 1}):
        with pytest.raises(InputError, match=r"column 'label' is missing in .*unlabelled\.csv"):
            compress(make_recipe(**refused_settings, train_file=str(unlabelled), out=str(tmp_path / "c")))
    assert not (tmp_path / "c").exists()


def test_labels_too_large_to_learn_are_the_trouble_and_not_the_rate(
    make_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    rows: list[dict[str, object]] = [{"sentence": "film", "label": 1e30}, {"sentence": "plot", "label": 0.5}]
    file = str(write_rows(tmp_path / "a.csv", rows))
    with pytest.raises(InputError, match=r"label '1e\+30' in line 2 of .*scale the labels") as caught:
        compress(make_recipe(methods="none", train_file=file, validation_file=file))
    assert "--lr" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("methods", ["none", "qat", "kd", "mp"])
@pytest.mark.parametrize("name", GLUE)
def test_each_method_alone_on_each_task(
    name: str, methods: str, make_recipe: Callable[..., Recipe], make_model: Callable[..., Path], tmp_path: Path
) -> None:
    glue = write_glue(tmp_path / "glue")
    task = GLUE[name]
    labels = {"id2label": dict(enumerate(task.label_names))} if task.label_names else {}
    teacher = make_model(f"teacher-{name}", num_labels=task.num_labels, **labels)
    source = {"train_file": None, "validation_file": None, "data_dir": str(glue), "teacher": str(teacher)}
    result = compress(make_recipe(task=name, methods=methods, epochs=1, **source))
    assert result.rows == {"train": 3, **{split: 3 for split in task.validation_splits}}
    assert evaluate(result.out)["metrics"] == result.metrics
    data = load_data(name, data_dir=glue)
    assert len(data.summary()) == 4 + len(task.validation_splits)
