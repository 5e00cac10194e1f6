"""GLUE's metrics and their mean, and F1 over the classes of the user's own tasks.

All values are fractions, not percent: accuracy and F1 are in 0..1, correlations in -1..1. A correlation with a constant
(all predictions equal) is undefined; it counts as 0.0 here, like Matthews' in scikit-learn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparseq.errors import InputError
from sparseq.extras import naming_extra
from sparseq.reading import brief
from sparseq.tasks.spec import Task

Array = NDArray[Any]


def _accuracy(predictions: Array, labels: Array) -> float:
    return float(np.mean(predictions == labels))


def _f1(predictions: Array, labels: Array) -> float:
    """F1 of class 1, as GLUE defines it; 0.0 if that class is neither predicted nor present."""
    from sklearn.metrics import f1_score

    return float(f1_score(labels, predictions, zero_division=0.0))


def _macro_f1(predictions: Array, labels: Array) -> float:
    """The unweighted mean of the F1 of each class that is predicted or present."""
    from sklearn.metrics import f1_score

    return float(f1_score(labels, predictions, average="macro", zero_division=0.0))


def _matthews(predictions: Array, labels: Array) -> float:
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(labels, predictions))


def _correlation(predictions: Array, labels: Array, method: str) -> float:
    from scipy import stats

    if np.ptp(predictions) == 0.0 or np.ptp(labels) == 0.0:
        return 0.0
    value = float(getattr(stats, method)(predictions, labels)[0])
    return value if np.isfinite(value) else 0.0


def _pearson(predictions: Array, labels: Array) -> float:
    return _correlation(predictions, labels, "pearsonr")


def _spearman(predictions: Array, labels: Array) -> float:
    return _correlation(predictions, labels, "spearmanr")


METRICS: dict[str, Callable[[Array, Array], float]] = {
    "accuracy": _accuracy,
    "f1": _f1,
    "macro_f1": _macro_f1,
    "matthews": _matthews,
    "pearson": _pearson,
    "spearman": _spearman,
}
"""By name; `own_metric` adds the caller's own."""

BUILT_IN = frozenset(METRICS)

Metric = Callable[[Array, Array], float]
"""A score of the user's own: of the true labels [rows] and the predicted ones [rows], in the order of scikit-learn's
metrics. Classes are numbers from 0. Higher is better."""


def own_metric(function: Metric) -> str:
    """Makes a function of the user's own a metric, and returns its name.

    Raises InputError if it has no name, or that of a metric that is built in.
    """
    name = getattr(function, "__name__", None)
    if not callable(function) or not isinstance(name, str):
        raise InputError(f"a metric must be a function with a name, not {type(function).__name__}")
    if name in BUILT_IN:
        raise InputError(f"the metric {name!r} has the name of one that is built in: give the function another name")

    def checked(predictions: Array, labels: Array) -> float:
        try:
            value = float(function(labels, predictions))
        except Exception as error:
            raise InputError(f"the metric {name!r} failed ({type(error).__name__}: {brief(error)})") from error
        if not np.isfinite(value):
            raise InputError(f"the metric {name!r} is {value} for {len(labels)} rows: it must be a finite number")
        return value

    METRICS[name] = checked
    return name


def own_name(task: Task) -> str:
    """The name of the task's metric that is the user's own; empty if it has none."""
    return next((name for name in task.metrics if name not in BUILT_IN), "")


@naming_extra("train")
def compute_metrics(task: Task, predictions: Array, labels: Array) -> dict[str, float]:
    """The task's metrics on one validation split, by name, in the order of `task.metrics`.

    Args:
        task: determines the metrics.
        predictions: logits `(rows, num_labels)`, or class numbers `(rows,)`; for regression `(rows, 1)` or `(rows,)`.
        labels: class numbers, or real numbers for regression, `(rows,)`.

    Raises:
        InputError: no rows, shapes that do not match, or NaN or infinite values.
    """
    predictions, labels = np.asarray(predictions), np.asarray(labels)
    rows = labels.shape[0] if labels.ndim else 0
    if labels.shape != (rows,) or predictions.shape not in ((rows,), (rows, task.num_labels)):
        raise InputError(
            f"predictions of shape {predictions.shape} do not fit labels of shape {labels.shape}: "
            f"task {task.name!r} needs (rows, {task.num_labels}) or (rows,), and (rows,)"
        )
    if rows == 0:
        raise InputError(f"there is nothing to score for task {task.name!r}: the split has no rows")
    for what, values in (("prediction", predictions), ("label", labels)):
        bad = np.flatnonzero(~np.isfinite(values.reshape(rows, -1)).all(axis=1))
        if bad.size:
            raise InputError(
                f"{bad.size} of {rows} {what}s for task {task.name!r} are NaN or infinite, the first in row {bad[0]}: "
                "finite numbers are needed to score them"
            )
    if task.is_regression:
        predictions, labels = predictions.reshape(rows).astype(np.float64), labels.astype(np.float64)
    elif predictions.ndim == 2:
        predictions = predictions.argmax(axis=1)
    return {name: METRICS[name](predictions, labels) for name in task.metrics}


def _merged_name(task: Task, metric: str, split: str) -> str:
    """`metric` itself if there is one split, otherwise with the name of the split: accuracy_mismatched."""
    return metric if len(task.validation_splits) == 1 else f"{metric}_{split.removeprefix('validation_')}"


def merge_splits(task: Task, per_split: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The metrics of all validation splits in one dict; for MNLI `accuracy_matched` and `accuracy_mismatched`.

    Args:
        task: names the splits.
        per_split: results of `compute_metrics`, by split name.

    Raises:
        InputError: a split is missing or unknown.
    """
    if set(per_split) != set(task.validation_splits):
        raise InputError(
            f"task {task.name!r} needs results for {', '.join(task.validation_splits)}: got {', '.join(per_split)}"
        )
    return {
        _merged_name(task, metric, split): per_split[split][metric]
        for split in task.validation_splits
        for metric in task.metrics
    }


def score(task: Task, metrics: Mapping[str, float]) -> float:
    """GLUE's single number for the task: the mean of its score metrics over its validation splits.

    CoLA: Matthews alone. MRPC, QQP: mean of accuracy and F1. STS-B: mean of Pearson and Spearman. MNLI: mean of the
    matched and the mismatched accuracy. The others: accuracy. At most 1, and below 0 only if a correlation is.

    Args:
        task: determines which metrics count.
        metrics: from `merge_splits`.

    Raises:
        InputError: a metric that counts is missing.
    """
    names = [_merged_name(task, metric, split) for metric in task.score_metrics for split in task.validation_splits]
    missing = [name for name in names if name not in metrics]
    if missing:
        raise InputError(f"the score of task {task.name!r} needs {', '.join(missing)}: got {', '.join(metrics)}")
    return float(np.mean([metrics[name] for name in names]))
