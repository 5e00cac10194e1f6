"""Weights of classes in the loss on the labels (`--class-weights`)."""

from collections.abc import Sequence

import numpy as np

from sparseq.errors import InputError
from sparseq.tasks import Data, Task
from sparseq.tasks.labels import brief_name, listed
from sparseq_kernels.untrusted import quoted

from .weights_setting import BALANCED, weights_by_name

MANY = 8
"""Classes that a message lists."""


def class_weights(given: Sequence[str], data: Data) -> tuple[float, ...] | None:
    """The weight of each class, in their order; None if all are alike.

    given: "balanced", or "NAME=WEIGHT" for some of the classes; the others have 1. Balanced weights are rows / (classes
    * rows of the class), as scikit-learn's, over the labelled training rows and the classes among them.

    Raises InputError for a regression, and for a class that the task does not have.
    """
    if not given:
        return None
    task = data.task
    if task.is_regression:
        raise InputError("--class-weights is for classes, and this task predicts a number: leave it out")
    if tuple(given) == (BALANCED,):
        assert data.train is not None
        labels = np.asarray(data.train["label"][:], dtype=np.int64)
        counts = np.bincount(labels[labels >= 0], minlength=task.num_labels)
        there = int((counts > 0).sum())
        return tuple(float(counts.sum() / (there * count)) if count else 1.0 for count in counts)
    names, named = class_names(task), weights_by_name(given)
    if unknown := [name for name in named if name not in names]:
        raise InputError(
            f"--class-weights names {quoted(unknown[0])}, which is none of the task's classes: {listed(task)}"
        )
    return tuple(named.get(name, 1.0) for name in names)


def described_weights(weights: Sequence[float], task: Task) -> str:
    """Such as "classes weighted in the loss: negative 0.75, positive 1.5"; the first few of many."""
    pairs = list(zip(class_names(task), weights, strict=True))[:MANY]
    shown = ", ".join(f"{brief_name(name)} {weight:.4g}" for name, weight in pairs)
    return f"classes weighted in the loss: {shown}" + (", ..." if len(weights) > MANY else "")


def class_names(task: Task) -> list[str]:
    """The names of the classes in their order; their numbers if they have none."""
    return list(task.label_names or map(str, range(task.num_labels)))
