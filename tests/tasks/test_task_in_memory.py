"""Rows that a program already has: of every usual kind, the same data as from a file."""

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from sparseq.errors import InputError
from sparseq.tasks import GLUE, compute_metrics, load_data
from sparseq.tasks.metrics import METRICS

TRAIN = {"text": ["good film", "bad film", "fine"], "label": ["yes", "no", "yes"]}
OTHER = {"text": ["a film", "poor"], "label": ["no", "yes"]}


def load(train: Any = None, validation: Any = None, **options: Any) -> Any:
    return load_data("custom", train=train, validation=OTHER if validation is None else validation, **options)


@pytest.mark.parametrize(
    "rows",
    [
        TRAIN,
        [{"text": text, "label": label} for text, label in zip(*TRAIN.values(), strict=True)],
        pa.table(TRAIN),
        pd.DataFrame(TRAIN, index=[5, 1, 3]),
        datasets.Dataset.from_dict(TRAIN),
        datasets.Dataset.from_dict({name: values[::-1] for name, values in TRAIN.items()}).select([2, 1, 0]),
        datasets.Dataset.from_dict(TRAIN).with_format("numpy"),
    ],
    ids=lambda rows: type(rows).__name__,
)
def test_rows_of_every_kind_are_those_of_a_file(rows: Any, tmp_path: Path) -> None:
    for name, columns in (("train", TRAIN), ("validation", OTHER)):
        pd.DataFrame(columns).to_csv(tmp_path / f"{name}.csv", index=False)
    files = load_data("custom", train_file=tmp_path / "train.csv", validation_file=tmp_path / "validation.csv")
    found = load(rows)
    assert found.task == files.task and found.train.to_dict() == files.train.to_dict()
    assert found.validations["validation"].to_dict() == files.validations["validation"].to_dict()
    assert found.summary()[0] == "3 training rows from the argument train"


def test_named_classes_keep_their_order() -> None:
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["yes", "no", "so"])}
    )
    rows = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]}, features=features)
    found = load(rows, rows)
    assert found.task.label_names == ("yes", "no", "so") and found.train["label"][:] == [0, 1]
    features["label"] = datasets.ClassLabel(names=list(GLUE["sst2"].label_names or ()))
    glue = datasets.Dataset.from_dict({"sentence": ["a", "b"], "label": [1, 0]}, features=datasets.Features(
        {"sentence": datasets.Value("string"), "label": features["label"]}))  # fmt: skip
    assert load_data("sst2", train=glue, validation=glue).train["label"][:] == [1, 0]
    test_rows = datasets.Dataset.from_dict({"text": ["a"], "label": [-1]}, features=features)
    with pytest.raises(InputError, match="row 1 of the argument validation has no label"):
        load(TRAIN, test_rows)


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (datasets.DatasetDict(train=datasets.Dataset.from_dict(TRAIN)), r"several splits \(train\): .* argument data,"),
        ("train.csv", "is of type str: expected a datasets.Dataset, a data frame"),
        (7, "is of type int"),
        ({"text": ["a"], "label": ["x", "y"]}, "cannot be read as a table"),
        ({"text": ["a", 1], "label": ["x", "y"]}, "cannot be read as a table"),
        ([{"words": "a", "label": "x"}], "has none of the usual text columns"),
        ({"text": ["a", None], "label": ["x", "y"]}, "row 2 of the argument train has no value in column 'text'"),
        ({"text": [], "label": []}, "the argument train holds no rows"),
    ],
    ids=str,
)
def test_other_rows_are_refused_in_one_sentence(rows: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        load(rows)


def test_rows_and_a_file_are_too_much() -> None:
    with pytest.raises(InputError, match=r"train rows and the file train\.csv are both given"):
        load(TRAIN, train_file="train.csv")


def test_a_metric_of_ones_own() -> None:
    def share_of_no(labels: np.ndarray, predictions: np.ndarray) -> float:
        assert labels.tolist() == [0, 1]  # scikit-learn's order
        return float(np.mean(predictions == 0))

    found = load(TRAIN, metric=share_of_no)
    assert found.task.score_metrics == ("share_of_no",) and found.task.metrics == ("accuracy", "f1", "share_of_no")
    values = compute_metrics(found.task, np.array([[1.0, 0.0], [2.0, 0.0]]), np.array([0, 1]))
    assert values["share_of_no"] == 1.0 and values["accuracy"] == 0.5
    assert load_data(found.task, validation=OTHER, with_train=False).task == found.task
    METRICS.pop("share_of_no")
    with pytest.raises(InputError, match="is scored by a function of your own, 'share_of_no'"):
        load_data(found.task, validation=OTHER, with_train=False)


def accuracy(labels: Any, predictions: Any) -> float:
    return 1.0


def broken(labels: Any, predictions: Any) -> float:
    raise KeyError("x")


def endless(labels: Any, predictions: Any) -> float:
    return float("nan")


def test_metrics_that_cannot_be_used() -> None:
    with pytest.raises(InputError, match="'accuracy' has the name of one that is built in"):
        load(TRAIN, metric=accuracy)
    with pytest.raises(InputError, match="a metric must be a function with a name, not int"):
        load(TRAIN, metric=3)
    for metric, sentence in ((broken, r"'broken' failed \(KeyError"), (endless, "'endless' is nan for 2 rows")):
        task = load(TRAIN, metric=metric).task
        with pytest.raises(InputError, match=sentence):
            compute_metrics(task, np.zeros(2), np.array([0, 1]))
