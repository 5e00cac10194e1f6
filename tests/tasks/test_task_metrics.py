"""Metrics against values worked out by hand, and GLUE's averages of them."""

import numpy as np
import pytest

from sparseq.errors import InputError
from sparseq.tasks import GLUE, Task, compute_metrics, merge_splits, score

# 3 true positives, 1 false positive, 1 false negative, 5 true negatives
LABELS = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0])
PREDICTED = np.array([1, 1, 1, 0, 1, 0, 0, 0, 0, 0])


def one_hot(classes: np.ndarray, count: int = 2) -> np.ndarray:
    return np.eye(count, dtype=np.float32)[classes]


@pytest.mark.parametrize("predictions", [PREDICTED, one_hot(PREDICTED)], ids=["classes", "logits"])
def test_accuracy_and_f1(predictions: np.ndarray) -> None:
    metrics = compute_metrics(GLUE["mrpc"], predictions, LABELS)
    assert list(metrics) == ["accuracy", "f1"]
    assert metrics["accuracy"] == pytest.approx(0.8)
    assert metrics["f1"] == pytest.approx(2 * 3 / (2 * 3 + 1 + 1))
    assert score(GLUE["mrpc"], metrics) == pytest.approx((0.8 + 0.75) / 2)
    assert score(GLUE["qqp"], metrics) == pytest.approx((0.8 + 0.75) / 2)


def test_matthews_and_accuracy() -> None:
    metrics = compute_metrics(GLUE["cola"], PREDICTED, LABELS)
    expected = (3 * 5 - 1 * 1) / np.sqrt((3 + 1) * (3 + 1) * (5 + 1) * (5 + 1))
    assert metrics == pytest.approx({"matthews": expected, "accuracy": 0.8})
    assert score(GLUE["cola"], metrics) == pytest.approx(expected)


def test_f1_of_own_tasks() -> None:
    own = Task("custom", ("text",), num_labels=3, metrics=("accuracy", "macro_f1"))
    labels, predicted = np.array([0, 0, 1, 1, 2, 2]), np.array([0, 1, 1, 1, 2, 0])
    # class 0: 1 of 2 found, 1 of 2 right; class 1: 2 of 2, 2 of 3; class 2: 1 of 2, 1 of 1
    wanted = {"accuracy": 4 / 6, "macro_f1": (0.5 + 0.8 + 2 / 3) / 3}
    assert compute_metrics(own, predicted, labels) == pytest.approx(wanted)
    assert score(own, wanted) == wanted["accuracy"]
    two = Task("custom", ("text",), metrics=("accuracy", "f1"))
    assert compute_metrics(two, PREDICTED, LABELS)["f1"] == pytest.approx(0.75)


def test_pearson_and_spearman() -> None:
    labels = np.array([1.0, 2.0, 3.0, 4.0])
    predictions = np.array([[1.0], [2.0], [4.0], [3.0]], dtype=np.float32)
    metrics = compute_metrics(GLUE["stsb"], predictions, labels)
    # both series have mean 2.5 and sum of squares 5; the products of their deviations sum to 4; ranks = values
    assert metrics == pytest.approx({"pearson": 0.8, "spearman": 0.8})
    curved = compute_metrics(GLUE["stsb"], np.exp(labels), labels)
    assert curved["spearman"] == pytest.approx(1.0)
    assert curved["pearson"] == pytest.approx(np.corrcoef(np.exp(labels), labels)[0, 1])
    assert score(GLUE["stsb"], curved) == pytest.approx((1.0 + curved["pearson"]) / 2)


@pytest.mark.parametrize("constant", [0.0, 0.1, 3.7])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_constant_predictions_score_zero(constant: float, dtype: type) -> None:
    labels = np.array([1.0, 2.0, 5.0])
    metrics = compute_metrics(GLUE["stsb"], np.full((3, 1), constant, dtype), labels)
    assert metrics == {"pearson": 0.0, "spearman": 0.0}
    assert compute_metrics(GLUE["stsb"], labels, np.full(3, constant)) == metrics


def test_one_class_predicted_scores_zero() -> None:
    assert compute_metrics(GLUE["cola"], np.zeros(10, int), LABELS) == pytest.approx({"matthews": 0.0, "accuracy": 0.6})
    assert compute_metrics(GLUE["qqp"], np.zeros(10, int), np.zeros(10, int)) == {"accuracy": 1.0, "f1": 0.0}


def test_one_row_is_enough() -> None:
    assert compute_metrics(GLUE["stsb"], np.array([[2.0]]), np.array([2.0])) == {"pearson": 0.0, "spearman": 0.0}


@pytest.mark.parametrize("name", ["sst2", "qnli", "rte", "wnli"])
def test_plain_accuracy(name: str) -> None:
    metrics = compute_metrics(GLUE[name], one_hot(PREDICTED), LABELS)
    assert merge_splits(GLUE[name], {"validation": metrics}) == metrics == {"accuracy": pytest.approx(0.8)}
    assert score(GLUE[name], metrics) == pytest.approx(0.8)


def test_mnli_is_the_mean_of_its_two_splits() -> None:
    task = GLUE["mnli"]
    matched = compute_metrics(task, one_hot(np.array([0, 1, 2, 2]), 3), np.array([0, 1, 2, 0]))
    mismatched = compute_metrics(task, np.array([0, 0]), np.array([0, 1]))
    merged = merge_splits(task, {"validation_mismatched": mismatched, "validation_matched": matched})
    assert merged == {"accuracy_matched": 0.75, "accuracy_mismatched": 0.5}
    assert score(task, merged) == pytest.approx(0.625)
    with pytest.raises(InputError, match="needs results for validation_matched, validation_mismatched: got validation"):
        merge_splits(task, {"validation": matched})
    with pytest.raises(InputError, match="needs accuracy_mismatched: got accuracy_matched"):
        score(task, {"accuracy_matched": 0.75})


@pytest.mark.parametrize(
    ("predictions", "labels", "sentence"),
    [
        (np.zeros((2, 3)), np.zeros(2), r"shape \(2, 3\) do not fit"),
        (np.zeros((3, 2)), np.zeros(2), r"shape \(3, 2\) do not fit"),
        (np.zeros((0, 2)), np.zeros(0), "nothing to score"),
        (
            np.array([[0.0, 1.0], [np.nan, 1.0]]),
            np.zeros(2),
            "1 of 2 predictions .* NaN or infinite, the first in row 1",
        ),
        (np.zeros((1, 2)), np.array([np.inf]), "1 of 1 labels .* NaN or infinite"),
    ],
)
def test_bad_input(predictions: np.ndarray, labels: np.ndarray, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        compute_metrics(GLUE["sst2"], predictions, labels)
