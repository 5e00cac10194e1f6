"""The model that a run's score is compared with, by its predictions on the validation rows."""

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from sparseq.drop import POINTS, drop_in_points
from sparseq.tasks import Data, compute_metrics, merge_splits, score
from sparseq.tasks.paired_scores import score_difference_error

from .gate import Drop

Logits = dict[str, NDArray[Any]]
"""Of each validation split, by name: [rows, num_labels]."""


@dataclass(frozen=True)
class Baseline:
    """A model that another one is compared with.

    name: as the recipe names it. digest: of its weights. logits: on the validation rows.
    """

    name: str
    digest: str
    logits: Logits

    def drop(self, data: Data, logits: Logits, limit: float | None) -> Drop:
        """How far the score of a model with these logits is below the baseline's."""
        own, other = (score(data.task, validation_metrics(data, found)) for found in (self.logits, logits))
        error = score_difference_error(data.task, self.logits, logits, _labels(data))
        return Drop(self.name, self.digest, own, drop_in_points(own, other), POINTS * error).limited(limit)

    def described(self, data: Data, limit: float | None) -> str:
        """Its score in one sentence without a full stop, and the limit of a drop from it."""
        own = score(data.task, validation_metrics(data, self.logits))
        allowed = "" if limit is None else f": at most {limit:g} points may be lost (--max-drop)"
        return f"{self.name} scores {own:.4f} on the validation rows{allowed}"


def validation_metrics(data: Data, logits: Logits) -> dict[str, float]:
    """The task's metrics of a model with these logits on the validation rows."""
    labels = _labels(data)
    return merge_splits(
        data.task, {split: compute_metrics(data.task, logits[split], labels[split]) for split in labels}
    )


def _labels(data: Data) -> dict[str, NDArray[Any]]:
    return {split: rows.with_format("numpy")["label"][:] for split, rows in data.validations.items()}
