"""Data sets by name, of the hub and in folders, and whole ones in memory: the same rows as from files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest

from sparseq.dataset_name import DatasetName
from sparseq.errors import InputError
from sparseq.tasks import hub, load_data

FEATURES = datasets.Features(
    {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["yes", "no", "so"])}
)
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def rows(texts: str, checksums: dict[str, Any] | None = None) -> datasets.Dataset:
    found = datasets.Dataset.from_dict(
        {"text": list(texts), "label": [number % 2 for number in range(len(texts))]}, features=FEATURES
    )
    found.info.download_checksums = checksums
    return found


def splits(**changes: Any) -> datasets.DatasetDict:
    return datasets.DatasetDict({"train": rows("abcdefghij"), "validation": rows("xyz"), **changes})


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(hub, "reachable", lambda: True)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "films").mkdir()


def saved(folder: str) -> None:
    splits().save_to_disk(folder)


def parquet(folder: str) -> None:
    for name, part in splits().items():
        part.to_parquet(f"{folder}/{name}.parquet")


def csv(folder: str) -> None:
    for name, part in splits().items():
        pd.DataFrame({"text": part["text"][:], "label": [["yes", "no"][n] for n in part["label"][:]]}).to_csv(
            f"{folder}/{name}.csv", index=False
        )


@pytest.mark.parametrize(
    ("write", "names"), [(saved, ("yes", "no", "so")), (parquet, ("yes", "no", "so")), (csv, ("no", "yes"))]
)
def test_a_folder_has_the_rows_of_the_same_data_set_in_memory(
    write: Callable[[str], None], names: tuple[str, ...]
) -> None:
    write("films")
    found = load_data("custom", dataset="films")
    assert found.task.label_names == names  # CSV has no order of its own
    assert found.train is not None and found.train["text_a"][:] == list("abcdefghij")
    assert [names[label] for label in found.validations["validation"]["label"][:]] == ["yes", "no", "yes"]
    assert found.origin == {"name": "films"}
    assert found.summary()[0] == "10 training rows from the split 'train' of films"
    if names[0] == "yes":
        in_memory = load_data("custom", data=splits())
        assert in_memory.task == found.task and in_memory.origin == {}
        assert in_memory.train is not None and in_memory.train.to_dict() == found.train.to_dict()
    task = load_data(found.task, dataset="films", validation_split="train[:4]", with_train=False)
    assert task.train is None and task.validations["validation"]["text_a"][:] == list("abcd")


def test_changed_files_are_read_again() -> None:
    parquet("films")
    before = load_data("custom", dataset="films").validations["validation"]
    rows("xyzz").to_parquet("films/validation.parquet")
    assert len(load_data("custom", dataset="films").validations["validation"]) == len(before) + 1


def test_one_saved_split_is_divided() -> None:
    rows("abcdefghij").save_to_disk("films")
    found = load_data("custom", dataset="films", train_split="train[:80%]", validation_split="train[80%:]")
    assert found.train is not None and found.train["text_a"][:] == list("abcdefgh")
    assert found.validations["validation"]["text_a"][:] == ["i", "j"]


def test_a_dict_of_data_frames() -> None:
    frames = {"train": pd.DataFrame({"text": ["a", "b"], "label": ["x", "y"]}), "dev": [{"text": "c", "label": "y"}]}
    found = load_data("custom", data=frames, validation_split="dev")
    assert found.validations["validation"]["label"][:] == [1]
    with pytest.raises(InputError, match=r"only a datasets\.Dataset can be divided"):
        load_data("custom", data=frames, validation_split="dev[:1]")


def test_a_data_set_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load_dataset(*args: Any, **options: Any) -> datasets.DatasetDict:
        asked.append((*args, options))
        return splits(train=rows("abcd", {f"hf://datasets/me/films@{COMMIT}/all/train.parquet": {}}), test=rows("uvw"))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    found = load_data("custom", dataset="me/films:all@v1", validation_split="test")
    assert asked == [("me/films", "all", {"revision": "v1", "trust_remote_code": False})]
    assert found.task.label_names == ("yes", "no", "so") and found.origin == {
        "name": "me/films", "config": "all", "revision": COMMIT,
    }  # fmt: skip
    assert found.validations["validation"]["text_a"][:] == ["u", "v", "w"]
    # Offline, `datasets` takes what is in the cache, whatever the revision.
    monkeypatch.setattr(hub, "reachable", lambda: False)
    assert load_data("custom", dataset=f"me/films@{COMMIT}").origin["revision"] == COMMIT
    with pytest.raises(InputError, match=rf"cannot be reached, and the local copy of me/films is of commit {COMMIT}"):
        load_data("custom", dataset="me/films@v1")


def test_the_hub_is_not_asked_if_datasets_must_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda *_, **__: pytest.fail("it was asked"))
    assert not hub.reachable()


@pytest.mark.parametrize(
    ("reached", "sentence"),
    [
        (
            True,
            r"me/films:none could not be read from the Hugging Face hub \(ValueError: BuilderConfig 'none' not found",
        ),
        (False, r"\(the hub cannot be reached, and there is no local copy; ValueError: .*give a local folder"),
    ],
)
def test_a_data_set_that_is_not_there(monkeypatch: pytest.MonkeyPatch, reached: bool, sentence: str) -> None:
    def load_dataset(*_: object, **__: object) -> None:
        raise ValueError("BuilderConfig 'none' not found.\nAvailable: ['all']")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(hub, "reachable", lambda: reached)
    with pytest.raises(InputError, match=sentence) as caught:
        load_data("custom", dataset="me/films:none")
    assert "\n" not in str(caught.value) and "Available: ['all']" in str(caught.value)


def test_a_data_set_that_is_not_in_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """With `datasets` itself, which asks nobody."""
    monkeypatch.setattr(hub, "reachable", lambda: False)
    with pytest.raises(InputError, match="there is no local copy"):
        load_data("custom", dataset="me/films")


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no such split": ({"validation_split": "test"}, r"films has no split 'test': its splits are train, validation"),
    "one split twice": ({"validation_split": "train[80%:]"}, "'train' of films is used to train on and to validate on"),
    "beyond its end": ({"train_split": "train[5:2]"}, r"the split 'train\[5:2\]' of films holds no rows"),
    "no notation": ({"train_split": "train[a"}, r"--train-split 'train\[a' is neither a split nor a part"),
    "a missing column": ({"label_column": "stars"}, "'stars' is missing in the split 'train' of films: .*text, label"),
    "files too": ({"train_file": "a.csv"}, r"--dataset films and the file a\.csv are both given"),
    "rows too": ({"validation": [{"text": "a"}]}, "--dataset films and validation rows are both given"),
    "GLUE's folders too": ({"data_dir": "glue"}, r"data_dir and own rows .*--dataset"),
    "two data sets": ({"data": {}}, "the argument data and --dataset films are both given"),
    "rows beside data": ({"dataset": None, "data": {}, "train": []}, "the argument data and train rows are both given"),
    "no splits": ({"dataset": None, "data": [1]}, r"data is of type list: expected a datasets\.DatasetDict"),
    "no data set": ({"dataset": None, "train_split": "a"}, "name splits of a data set: give --dataset"),
    "a configuration": ({"dataset": "films:all"}, "films:all: a folder of save_to_disk has no configurations"),
    "no folder": ({"dataset": "./none"}, r"there is no folder \./none"),
    "an empty folder": ({"dataset": "empty"}, "folder empty could not be read .*doesn't contain any data files"),
    "a file": ({"dataset": "file.csv"}, r"--dataset file\.csv is a file: give files as --train-file"),
    "an address": ({"dataset": "https://huggingface.co/datasets/a/b"}, "neither a folder .* such as nyu-mll/glue:sst2"),
    "a kind of file": ({"dataset": "pandas"}, "--dataset pandas names a kind of file"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_refused(kind: str) -> None:
    saved("films")
    Path("empty").mkdir()
    Path("file.csv").write_text("text,label\n")
    settings, sentence = REFUSED[kind]
    with pytest.raises(InputError, match=sentence) as caught:
        load_data("custom", **{"dataset": "films", **settings})
    assert "\n" not in str(caught.value)


def test_names() -> None:
    assert DatasetName.parse("glue") == DatasetName("glue")
    assert DatasetName.parse("nyu-mll/glue:sst2@refs/convert/parquet") == DatasetName(
        "nyu-mll/glue", "sst2", "refs/convert/parquet"
    )
    assert DatasetName.parse("films:all") == DatasetName("films", "all", is_folder=True)
    assert str(DatasetName.parse("films:all").resolved()) == f"{Path('films').resolve()}:all"
    for name in ("nyu-mll/glue:sst2@abc", "glue@abc", "films:all"):
        assert str(DatasetName.parse(name)) == name
