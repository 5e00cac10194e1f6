"""The standard error of the difference of two models' scores on the same rows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparseq.paired import PairedAnswers
from sparseq.tasks.metrics import compute_metrics, merge_splits, score
from sparseq.tasks.spec import Task

Array = NDArray[Any]

RESAMPLES = 200
"""Of the bootstrap: the error is then known to a twentieth of itself."""
SEED = 0


def score_difference_error(
    task: Task, first: Mapping[str, Array], second: Mapping[str, Array], labels: Mapping[str, Array]
) -> float:
    """The standard error, as a fraction, of the first model's score minus the second's, over the choice of rows.

    first, second: logits [rows, num_labels] of each validation split, by name. labels: [rows].

    Where the score is an accuracy it is exact (`sparseq.paired`); otherwise it is the standard deviation over a
    bootstrap, in which both models are scored on the same drawn rows (Efron 1979), from a fixed seed. The splits are
    independent. It does not include the variation between training seeds.
    """
    if task.score_metrics == ("accuracy",):
        errors = []
        for split in task.validation_splits:
            right = [logits[split].argmax(-1) == labels[split] for logits in (first, second)]
            errors.append(PairedAnswers.of(right[0].tolist(), right[1].tolist()).standard_error)
        return math.hypot(*errors) / len(errors)
    generator = np.random.default_rng(SEED)
    differences = []
    for _ in range(RESAMPLES):
        drawn = {split: generator.integers(0, len(labels[split]), len(labels[split])) for split in labels}
        both = (
            score(
                task,
                merge_splits(
                    task, {split: compute_metrics(task, logits[split][rows], labels[split][rows])
                           for split, rows in drawn.items()}
                ),
            )
            for logits in (first, second)
        )  # fmt: skip
        differences.append(next(both) - next(both))
    return float(np.std(differences, ddof=1))
