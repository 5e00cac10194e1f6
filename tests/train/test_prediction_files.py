"""Where predictions are written: files, links, folders, and what GLUE takes; all is checked before it is predicted."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from glue_files import write_glue
from refusals import refused

from sparseq.cli import main
from sparseq.errors import InputError
from sparseq.paths import check_new_folder
from sparseq.tasks import GLUE
from sparseq.tasks.unlabelled import submission_name
from sparseq.train import Recipe, compress
from sparseq.train.plan import dry_run
from sparseq.train.predicting import Predicted, Prediction, check_output
from tests.conftest import write_rows


@pytest.fixture(scope="module")
def run(tiny_model_dir: Path, tiny_csv: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of SST-2 by own files."""
    out = tmp_path_factory.mktemp("run") / "out"
    recipe = {"model": str(tiny_model_dir), "methods": "none", "epochs": 1, "max_length": 16, "task": "sst2"}
    compress(
        Recipe.from_dict(
            {**recipe, "train_file": str(tiny_csv[0]), "validation_file": str(tiny_csv[1]), "out": str(out)}
        )
    )
    return out


def test_a_link_stays_and_leads_to_the_predictions(run: Path, tmp_path: Path) -> None:
    (tmp_path / "link.csv").symlink_to(tmp_path / "target.csv")
    assert main(["predict", str(run), "good", "--out", str(tmp_path / "link.csv")]) == 0
    assert (tmp_path / "link.csv").is_symlink() and (tmp_path / "target.csv").read_text().startswith("index,")


def test_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.csv")
    with pytest.raises(InputError, match=r"a\.csv is no regular file"):
        check_output(tmp_path / "a.csv")


def test_folders_that_may_not_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(InputError, match=r"a\.csv is in a folder that is not writable"):
        check_output(tmp_path / "a.csv")
    with pytest.raises(InputError, match=r"--submission .*new: .* is not writable"):
        check_new_folder(tmp_path / "new", "--submission")


def test_a_submission_inside_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match=r"--submission .*file is a file: give a folder"):
        check_new_folder(tmp_path / "file", "--submission")
    with pytest.raises(InputError, match=r"--submission .*deep is inside a file: give a folder"):
        check_new_folder(tmp_path / "file" / "a" / "deep", "--submission")
    assert check_new_folder(tmp_path / "new" / "folder", "--submission") == tmp_path / "new" / "folder"


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["predict", "--data-dir", "glue", "--submission", "out", "--out", "a.csv"], "may hold several test files"),
        (["predict", "--data-dir", "glue", "--submission", "out", "--json"], "--submission prints nothing"),
        (["predict", "--file", "a.csv", "--submission", __file__ + "/out"], "is inside a file: give a folder"),
        (["predict", "--file", "a.csv"], "; name the right one with --text-columns"),
        (["predict", "--good"], "a text that begins with a dash goes behind --"),
        (
            ["evaluate", "--max-validation-rows", "x"],
            "--max-validation-rows wants a whole number of at least 1, not 'x'",
        ),
        (
            ["evaluate", "--max-validation-rows", "0"],
            "--max-validation-rows wants a whole number of at least 1, not '0'",
        ),
        (["evaluate", "--validation-file", "b.csv"], "name the right one with --label-column"),
    ],
    ids=str,
)
def test_arguments_that_are_refused(
    argv: list[str],
    sentence: str,
    run: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_text("review\ngood\n")
    write_rows(tmp_path / "b.csv", [{"sentence": "good", "y": 1}])
    assert sentence in refused(capsys, argv[0], run, *argv[1:])
    assert not (tmp_path / "out").exists()


def test_only_the_folder_is_required(capsys: pytest.CaptureFixture[str]) -> None:
    assert "the following arguments are required: DIR (see" in refused(capsys, "predict")


@pytest.mark.parametrize(
    ("index", "sentence"),
    [
        (["0", "1", "1"], r"index '1' in row 3 of .*test\.tsv is there twice"),
        (["0", "x"], r"index 'x' in row 2 of .* is no whole number"),
        (["1.0"], r"index '1\.0' in row 1"),
        (["-1"], r"index '-1' in row 1"),
        (["a\tb"], r"index 'a\\tb' in row 1"),
        (["\u0661"], r"in row 1 of"),
    ],
)
def test_an_index_that_glue_does_not_take(index: list[str], sentence: str) -> None:
    found = [Prediction(("good",), "positive", 0.9)] * len(index)
    with pytest.raises(InputError, match=sentence):
        Predicted(GLUE["sst2"], Path("test.tsv"), index, found).submission()


@pytest.mark.parametrize(
    ("name", "submission"),
    [
        ("test_matched.tsv.gz", "MNLI-m.tsv"),
        ("mnli_mismatched.csv", "MNLI-mm.tsv"),
        ("diagnostic.tsv.gz", "AX.tsv"),
        ("AX.csv", "AX.tsv"),
        ("unmatched.tsv", None),
        ("matched_mismatched.tsv", None),
    ],
)
def test_which_test_set_of_mnlis(name: str, submission: str | None) -> None:
    if submission is not None:
        assert submission_name(GLUE["mnli"], Path(name)) == submission
        return
    with pytest.raises(InputError, match="may be either of"):
        submission_name(GLUE["mnli"], Path(name))


def test_a_submission_of_another_length_than_glues_is_told(
    run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Development rows, or another task's, would be refused there."""
    glue = write_glue(tmp_path / "glue")
    assert main(["predict", str(run), "--file", str(glue / "SST-2" / "dev.tsv"), "--submission", str(tmp_path)]) == 0
    assert "SST-2.tsv has 3 rows, and GLUE's test set 1,821" in capsys.readouterr().err


def test_evaluate_takes_numbers_as_compress_does_and_counts_one_row(
    run: Path, capsys: pytest.CaptureFixture[str], make_recipe: Callable[..., Recipe]
) -> None:
    assert main(["evaluate", str(run), "--max-validation-rows", "1e0"]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("validation\t1 row\n") and "of which 1 are taken" in said.err


def test_a_folder_of_glues_for_a_task_of_ones_own(
    make_recipe: Callable[..., Recipe], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = compress(make_recipe(methods="none", epochs=1)).out
    said = refused(capsys, "evaluate", out, "--data-dir", tmp_path)
    assert "--data-dir holds GLUE's tasks, and the task is 'custom': give --validation-file\n" in said


@pytest.mark.parametrize(
    ("name", "sentence"), [("file/run", "is inside a file"), ("x" * 300, "cannot be used (File name too long)")]
)
def test_a_dry_run_refuses_a_folder_that_cannot_be_made(
    name: str, sentence: str, make_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match=f"--out .* {re.escape(sentence)}"):
        dry_run(make_recipe(methods="none", out=str(tmp_path / name)))
