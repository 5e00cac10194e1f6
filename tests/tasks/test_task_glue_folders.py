"""GLUE's classic folder layout: all nine tasks, their quirks, and what is said of a broken one."""

import shutil
from pathlib import Path

import pytest
from glue_files import PAIRS, QUOTED, write_glue, write_tsv

from sparseq.errors import InputError
from sparseq.tasks import GLUE, load_data
from sparseq.tasks.glue import LAYOUTS
from sparseq.tasks.load import TEXTS


@pytest.fixture
def glue(tmp_path: Path) -> Path:
    """A small folder with all nine tasks: three rows a file."""
    return write_glue(tmp_path / "glue")


EXPECTED_LABELS = {
    "cola": [1, 0, 1],
    "sst2": [1, 0, 1],
    "mrpc": [1, 0, 1],
    "qqp": [1, 0, 1],
    "stsb": [5.0, 0.0, 3.8],
    "mnli": [1, 0, 2],
    "qnli": [0, 1, 0],
    "rte": [0, 1, 0],
    "wnli": [1, 0, 1],
}


@pytest.mark.parametrize("name", list(GLUE))
@pytest.mark.parametrize("inside", [False, True], ids=["folder of tasks", "task folder"])
def test_every_task(glue: Path, name: str, inside: bool) -> None:
    data = load_data(name, data_dir=glue / LAYOUTS[name].folder if inside else glue)
    assert data.task == GLUE[name]
    assert data.train is not None
    assert tuple(data.validations) == GLUE[name].validation_splits
    assert data.skipped == {}
    for rows in (data.train, *data.validations.values()):
        assert list(rows["label"]) == EXPECTED_LABELS[name]
        texts = [[QUOTED, "dull ", "fine "]] if name == "sst2" else list(map(list, zip(*PAIRS, strict=True)))
        assert [list(rows[column]) for column in rows.column_names[:-1]] == texts[: len(GLUE[name].columns)]
        assert rows.column_names == [*TEXTS[: len(GLUE[name].columns)], "label"]
        assert isinstance(rows[0]["label"], float if name == "stsb" else int)


def test_folder_names_in_any_spelling(glue: Path) -> None:
    (glue / "SST-2").rename(glue / "sst2")
    assert len(load_data("SST-2", data_dir=str(glue)).validations["validation"]) == 3


def test_training_rows_only_when_asked_for(glue: Path) -> None:
    (glue / "RTE" / "train.tsv").unlink()
    data = load_data("rte", data_dir=glue, with_train=False)
    assert data.train is None
    assert len(data.validations["validation"]) == 3


def test_original_mrpc_file_is_split_by_its_development_ids(glue: Path) -> None:
    folder = glue / "MRPC"
    (folder / "train.tsv").rename(folder / "msr_paraphrase_train.txt")
    (folder / "dev.tsv").unlink()
    with pytest.raises(InputError, match=r"dev\.tsv is missing in .*MRPC: beside msr_paraphrase_train\.txt give"):
        load_data("mrpc", data_dir=glue)
    write_tsv(folder / "dev_ids.tsv", (11, 21))
    data = load_data("mrpc", data_dir=glue)
    assert data.train is not None
    assert list(data.train["text_a"]) == ["first one", "third one"]
    assert list(data.validations["validation"]["text_a"]) == ["second one"]


def test_original_mrpc_file_beside_dev_tsv_never_trains_on_development_rows(glue: Path) -> None:
    folder = glue / "MRPC"
    (folder / "train.tsv").rename(folder / "msr_paraphrase_train.txt")
    header = ("Quality", "#1 ID", "#2 ID", "#1 String", "#2 String")
    write_tsv(folder / "dev.tsv", header, (0, 11, 21, *PAIRS[1]))
    data = load_data("mrpc", data_dir=folder)
    assert data.train is not None
    assert list(data.train["text_a"]) == ["first one", "third one"]
    assert len(data.validations["validation"]) == 1


def test_malformed_qqp_rows_are_left_out_and_counted(glue: Path, caplog: pytest.LogCaptureFixture) -> None:
    with (glue / "QQP" / "train.tsv").open("a") as file:
        file.write("9\t1\t2\ta question that breaks\n off?\tits pair\t1\n\n")
    data = load_data("qqp", data_dir=glue)
    assert data.train is not None
    assert len(data.train) == 3
    assert data.skipped == {"train": 2}
    assert "2 malformed rows left out" in caplog.text


def test_a_run_on_own_files_can_be_scored_on_the_folder(glue: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.csv"
    own.write_text("p,h,label\na,b,neutral\nc,d,0\n")
    task = load_data("mnli", train_file=own, validation_file=own, text_columns=["p", "h"]).task
    assert task.validation_splits == ("validation",)
    assert load_data(task, data_dir=glue, with_train=False).task == GLUE["mnli"]


def _sentence_missing_folder(glue: Path) -> str:
    shutil.rmtree(glue / "RTE")
    return r"holds neither a folder 'RTE' nor the files train\.tsv and dev\.tsv of task 'rte': found CoLA, MNLI, MRPC"


def _sentence_no_data_dir(glue: Path) -> str:
    shutil.rmtree(glue)
    return r"there is no data folder .*glue: give the folder that holds GLUE's task folders"


def _sentence_missing_train(glue: Path) -> str:
    (glue / "RTE" / "train.tsv").unlink()
    return r"train\.tsv is missing in .*RTE: expected GLUE's own RTE files there"


def _sentence_missing_column(glue: Path) -> str:
    write_tsv(glue / "RTE" / "dev.tsv", ("index", "sentence1", "other", "label"), (0, "a", "b", "entailment"))
    return r"column 'sentence2' is missing in .*dev\.tsv: its columns are index, sentence1, other, label"


def _sentence_doubled_column(glue: Path) -> str:
    write_tsv(glue / "RTE" / "dev.tsv", ("sentence1", "sentence1", "sentence2", "label"), ("a", "b", "c", "entailment"))
    return r"column 'sentence1' is twice in .*dev\.tsv"


def _sentence_field_count(glue: Path) -> str:
    with (glue / "RTE" / "train.tsv").open("a") as file:
        file.write("3\tone\ttwo\tthree\tentailment\n")
    return r"line 5 of .*train\.tsv has 5 tab-separated fields: expected 4 \(index, sentence1, sentence2, label\)"


def _sentence_label(glue: Path) -> str:
    with (glue / "RTE" / "train.tsv").open("a") as file:
        file.write("3\tone\ttwo\tmaybe\n")
    return r"label 'maybe' in line 5 of .*train\.tsv is no class: task 'rte' takes 0 to 1 \(entailment, not_ent"


def _sentence_no_label(glue: Path) -> str:
    with (glue / "RTE" / "dev.tsv").open("a") as file:
        file.write("3\tone\ttwo\t\n")
    return r"line 5 of .*dev\.tsv has no label in column 'label': every row needs one"


def _sentence_no_rows(glue: Path) -> str:
    write_tsv(glue / "RTE" / "dev.tsv", ("index", "sentence1", "sentence2", "label"))
    return r"dev\.tsv holds no rows of data"


def _sentence_not_utf8(glue: Path) -> str:
    (glue / "RTE" / "dev.tsv").write_bytes("café".encode("latin-1"))
    return r"dev\.tsv is not UTF-8 text \(byte 0xe9 at offset 3\): save it as UTF-8"


@pytest.mark.parametrize(
    "spoil",
    [
        _sentence_missing_folder,
        _sentence_no_data_dir,
        _sentence_missing_train,
        _sentence_missing_column,
        _sentence_doubled_column,
        _sentence_field_count,
        _sentence_label,
        _sentence_no_label,
        _sentence_no_rows,
        _sentence_not_utf8,
    ],
)
def test_bad_folders_get_one_sentence(glue: Path, spoil: object) -> None:
    sentence = spoil(glue)  # type: ignore[operator]
    with pytest.raises(InputError, match=sentence) as caught:
        load_data("rte", data_dir=glue)
    assert "\n" not in str(caught.value)


def test_stsb_scores_stay_in_their_range(glue: Path) -> None:
    with (glue / "STS-B" / "dev.tsv").open("a") as file:
        file.write("3\tg\tf\ty\to\ts\ts\tone\ttwo\t5.5\n")
    with pytest.raises(
        InputError, match=r"label '5\.5' in line 5 of .* out of range: task 'stsb' takes a number from 0 to 5"
    ):
        load_data("stsb", data_dir=glue)


def test_another_tasks_folder_is_noticed(glue: Path) -> None:
    with pytest.raises(InputError, match=r"line 1 of .*has 2 tab-separated fields: expected 4"):
        load_data("cola", data_dir=glue / "SST-2")
    with pytest.raises(InputError, match=r"dev_matched\.tsv is missing"):
        load_data("mnli", data_dir=glue / "SST-2", with_train=False)


REAL = Path(__file__).parents[3] / "shared" / "data" / "glue"


@pytest.mark.parametrize(("name", "train", "validation"), [("sst2", 67_349, 872), ("stsb", 5_749, 1_500)])
def test_real_glue_files(name: str, train: int, validation: int) -> None:
    if not (REAL / LAYOUTS[name].folder).is_dir():
        pytest.skip(f"GLUE's own {LAYOUTS[name].folder} files are not beside this repository")
    data = load_data(name, data_dir=REAL)
    assert data.train is not None
    assert (len(data.train), len(data.validations["validation"])) == (train, validation)
    assert data.skipped == {}
    if name == "sst2":
        assert data.train[0] == {"text_a": "hide new secretions from the parental units ", "label": 0}
    else:
        first = {"text_a": "A plane is taking off.", "text_b": "An air plane is taking off.", "label": 5.0}
        assert data.train[0] == first
