"""The hub's `nyu-mll/glue`, by a stand-in for `datasets.load_dataset`: no network in tests."""

import time
from pathlib import Path
from typing import Any

import datasets
import pytest

from sparseq.errors import InputError
from sparseq.tasks import GLUE, hub, load_data
from sparseq.tasks.load import TEXTS

ROWS = 4


def hub_rows(name: str, **columns: list[Any]) -> datasets.Dataset:
    task = GLUE[name]
    label = datasets.Value("float32") if task.is_regression else datasets.ClassLabel(names=list(task.label_names or ()))
    values: dict[str, list[Any]] = {column: [f"{column} {row}" for row in range(ROWS)] for column in task.columns}
    values |= {"label": [row % task.num_labels for row in range(ROWS)], "idx": list(range(ROWS))} | columns
    features = {column: datasets.Value("string") for column in task.columns}
    return datasets.Dataset.from_dict(
        values, features=datasets.Features({**features, "label": label, "idx": datasets.Value("int32")})
    )


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub answers, as far as one can see without a network."""
    monkeypatch.setattr(hub, "reachable", lambda: True)


@pytest.mark.parametrize("name", list(GLUE))
def test_every_task(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    asked = []

    def load_dataset(path: str, config: str, *, split: str) -> datasets.Dataset:
        asked.append((path, config, split))
        return hub_rows(name)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    data = load_data(name)
    task = GLUE[name]
    assert asked == [("nyu-mll/glue", name, split) for split in ("train", *task.validation_splits)]
    assert data.task == task
    assert data.train is not None
    assert tuple(data.validations) == task.validation_splits
    for rows in (data.train, *data.validations.values()):
        assert rows.column_names == [*TEXTS[: len(task.columns)], "label"]
        assert rows[1]["text_a"] == f"{task.columns[0]} 1"
        assert rows.features["label"].dtype == ("float64" if name == "stsb" else "int64")
        assert list(rows["label"]) == [row % task.num_labels for row in range(ROWS)]
    asked.clear()
    assert load_data(name, with_train=False, max_validation_rows=2).train is None
    assert [split for _, _, split in asked] == list(task.validation_splits)


@pytest.mark.parametrize(
    "error",
    [
        ConnectionError("Couldn't reach 'nyu-mll/glue' on the Hub\nsecond line"),
        ValueError("Couldn't find cache for nyu-mll/glue for config 'sst2'"),
        FileNotFoundError("no such dataset"),
        RuntimeError("from some client library"),
    ],
)
def test_unreachable_hub_names_every_way_out(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def load_dataset(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(InputError, match="task 'sst2' could not be read from the hub's nyu-mll/glue") as caught:
        load_data("sst2")
    sentence = str(caught.value)
    assert all(way in sentence for way in ("--data-dir", "--train-file", "--validation-file", "HF_HUB_OFFLINE=1"))
    assert str(error).splitlines()[0] in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize(
    ("name", "rows", "sentence"),
    [
        (
            "sst2",
            hub_rows("sst2", label=[0, 1, -1, 0]),
            "label -1 in row 2 of .* sst2 train is out of range: expected 0 to 1",
        ),
        ("stsb", hub_rows("stsb", label=[0.0, 6.0, 1.0, 1.0]), "label 6 in row 1 of .* out of range: expected 0 to 5"),
        (
            "rte",
            hub_rows("sst2"),
            "column 'sentence1' is missing in .* rte train: its columns are sentence, label, idx",
        ),
        ("sst2", hub_rows("sst2").select([]), "sst2 train has no rows"),
    ],
)
def test_damaged_hub_data(monkeypatch: pytest.MonkeyPatch, name: str, rows: datasets.Dataset, sentence: str) -> None:
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: rows)
    with pytest.raises(InputError, match=sentence):
        load_data(name)


def test_a_hub_out_of_reach_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """`datasets` looks into its cache alone then, in place of six attempts that take 23 s."""
    seen = []

    def load_dataset(path: str, config: str, *, split: str) -> datasets.Dataset:
        seen.append(datasets.config.HF_HUB_OFFLINE)
        return hub_rows("sst2")

    before = datasets.config.HF_HUB_OFFLINE
    monkeypatch.setattr(hub, "reachable", lambda: False)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    data = load_data("sst2")
    assert seen == [True, True] and datasets.config.HF_HUB_OFFLINE is before
    assert data.summary()[0] == f"{ROWS} training rows from the hub's nyu-mll/glue sst2"


def test_no_hub_and_no_local_copy_is_said_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(hub, "reachable", lambda: False)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    began = time.monotonic()
    with pytest.raises(InputError, match=r"the hub cannot be reached, and there is no local copy; .*--data-dir"):
        load_data("rte")
    assert time.monotonic() - began < 3


# As the hub's HTTP library calls them, in each of its versions.
SLOW, UNKNOWN = type("ReadTimeout", (Exception,), {}), type("ConnectTimeout", (Exception,), {})


@pytest.mark.parametrize(
    ("error", "reached"),
    [(None, True), (SLOW(), True), (UNKNOWN(), False), (OSError("no name"), False)],
    ids=str,
)
def test_one_quick_question(monkeypatch: pytest.MonkeyPatch, error: Exception | None, reached: bool) -> None:
    import huggingface_hub

    monkeypatch.undo()
    waited = []

    def dataset_info(self: object, name: str, *, timeout: float) -> None:
        waited.append(timeout)
        if error is not None:
            raise error

    with monkeypatch.context() as patch:
        patch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)
        assert hub.reachable() is reached
    assert len(waited) == 1 and waited[0] < 3
