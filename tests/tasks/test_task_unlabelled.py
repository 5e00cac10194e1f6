"""Files to predict, and GLUE's submissions."""

from pathlib import Path

import pytest
from glue_files import PAIRS, QUOTED, write_glue, write_tsv

from sparseq.errors import InputError
from sparseq.tasks import GLUE, Task
from sparseq.tasks.glue import LAYOUTS
from sparseq.tasks.unlabelled import read_glue_tests, read_unlabelled, submission_name, submission_value

OWN = Task("custom", ("review",), "stars", 5, ("1", "2", "3", "4", "5"))


@pytest.fixture(scope="module")
def glue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_glue(tmp_path_factory.mktemp("data") / "glue")


@pytest.mark.parametrize("name", GLUE)
def test_every_tasks_test_files(name: str, glue: Path) -> None:
    task = GLUE[name]
    found = read_glue_tests(task, glue)
    assert [rows.path.name for rows in found] == list(LAYOUTS[name].test_files)
    for rows in found:
        texts = [(QUOTED,), ("dull ",), ("fine ",)] if name == "sst2" else [pair[: len(task.columns)] for pair in PAIRS]
        assert rows.texts == texts
        first = 9847 if "mismatched" in rows.path.name else 0
        assert rows.labels == [str(first + row) for row in range(3)]
        assert read_unlabelled(task, rows.path) == rows
        assert read_glue_tests(task, rows.path.parent) == found


EXPECTED_NAMES = {
    "cola": ["CoLA.tsv"], "sst2": ["SST-2.tsv"], "mrpc": ["MRPC.tsv"], "qqp": ["QQP.tsv"], "stsb": ["STS-B.tsv"],
    "mnli": ["MNLI-m.tsv", "MNLI-mm.tsv"], "qnli": ["QNLI.tsv"], "rte": ["RTE.tsv"], "wnli": ["WNLI.tsv"],
}  # fmt: skip


@pytest.mark.parametrize("name", GLUE)
def test_submissions_have_the_names_that_glue_expects(name: str, glue: Path) -> None:
    task = GLUE[name]
    assert [submission_name(task, rows.path) for rows in read_glue_tests(task, glue)] == EXPECTED_NAMES[name]


def test_the_diagnostic_set_is_mnlis(tmp_path: Path) -> None:
    write_tsv(tmp_path / "diagnostic.tsv", ("index", "sentence1", "sentence2"), (0, "a", "b"))
    rows = read_unlabelled(GLUE["mnli"], tmp_path / "diagnostic.tsv")
    assert rows.texts == [("a", "b")] and submission_name(GLUE["mnli"], rows.path) == "AX.tsv"


@pytest.mark.parametrize(
    ("name", "label", "value", "written"),
    [
        ("cola", "acceptable", 0.9, "1"),
        ("sst2", "negative", 0.9, "0"),
        ("mrpc", "equivalent", 0.9, "1"),
        ("qqp", "not_duplicate", 0.9, "0"),
        ("mnli", "contradiction", 0.9, "contradiction"),
        ("qnli", "not_entailment", 0.9, "not_entailment"),
        ("rte", "entailment", 0.9, "entailment"),
        ("wnli", "entailment", 0.9, "1"),
        ("wnli", "not_entailment", 0.9, "0"),
        ("stsb", "3.1416", 3.14159, "3.142"),
        ("stsb", "-0.2000", -0.2, "0.000"),
        ("stsb", "5.3000", 5.3, "5.000"),
    ],
)
def test_what_is_submitted(name: str, label: str, value: float, written: str) -> None:
    assert submission_value(GLUE[name], label, value) == written


def test_glue_takes_no_other_tasks(glue: Path) -> None:
    with pytest.raises(InputError, match="GLUE takes no predictions for task 'custom'"):
        submission_name(OWN, Path("test.tsv"))
    with pytest.raises(InputError, match="task 'custom' is none of GLUE's"):
        read_glue_tests(OWN, glue)
    with pytest.raises(InputError, match=r"may be either of test_matched\.tsv and test_mismatched\.tsv"):
        submission_name(GLUE["mnli"], Path("test.tsv"))
    (glue / "RTE" / "test.tsv").rename(glue / "RTE" / "other.tsv")
    try:
        with pytest.raises(InputError, match=r"test\.tsv is missing in .*RTE"):
            read_glue_tests(GLUE["rte"], glue)
    finally:
        (glue / "RTE" / "other.tsv").rename(glue / "RTE" / "test.tsv")


@pytest.mark.parametrize(
    ("content", "index"),
    [
        ("review\nfine\nbad\n", [None, None]),
        ("review,stars\nfine,\nbad,\n", [None, None]),
        ("id,review\na7,fine\nb8,bad\n", ["a7", "b8"]),
        ("stars,review,index\n5,fine,3\n1,bad,4\n", ["3", "4"]),
    ],
)
def test_own_files(content: str, index: list[str | None], tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(content)
    rows = read_unlabelled(OWN, tmp_path / "a.csv")
    assert rows.texts == [("fine",), ("bad",)] and rows.labels == index
    renamed = read_unlabelled(Task("custom", ("text",)), tmp_path / "a.csv", ["review"])
    assert renamed.texts == rows.texts


def test_a_glue_tasks_own_files_keep_their_quotes(tmp_path: Path) -> None:
    """Only a file with an index is GLUE's own, in which quotes are plain characters."""
    (tmp_path / "a.tsv").write_text('sentence\n"a ""quoted"" film"\n')
    assert read_unlabelled(GLUE["sst2"], tmp_path / "a.tsv").texts == [('a "quoted" film',)]
    (tmp_path / "a.tsv").write_text('index\tsentence\n0\t"a ""quoted" film\n')
    assert read_unlabelled(GLUE["sst2"], tmp_path / "a.tsv").texts == [('"a ""quoted" film',)]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("body\nfine\n", r"column 'review' is missing in .*a\.csv: its columns are body"),
        ("review\n", r"a\.csv holds no rows of data: expected at least one row with a text$"),
        ('review,id\n"fine,1\nbad,2\nso",3\n', r"line 2 of .*a\.csv begins a quoted text"),
    ],
)
def test_own_files_that_are_refused(content: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(InputError, match=sentence):
        read_unlabelled(OWN, tmp_path / "a.csv")
