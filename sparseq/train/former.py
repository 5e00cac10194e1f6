"""What the recipe in a run's folder means where it was written before a setting existed."""

from collections.abc import Collection, Mapping
from typing import Any

from sparseq.criterion import FORMER

from .quantizing import former_calibration_rows

# Settings that the first versions did not have -> their former behaviour.
_BEFORE: dict[str, Any] = {"max_layer_sparsity": 1.0, "calibration": "max"}
# Settings that the recipe in a run's folder always has, and others rarely.
_OF_RUNS = {"scope", "prune_updates", "qat_start", "eval_batch_size"}


def with_former(values: Mapping[str, Any], methods: Collection[str]) -> dict[str, Any]:
    """The settings of a file with the former meaning of those that it lacks, if it is the recipe in a run's folder.

    methods: of the recipe.
    """
    if not values.keys() >= _OF_RUNS:
        return dict(values)
    before = {} if _BEFORE.keys() & values.keys() else _BEFORE
    former: dict[str, Any] = {"calibration_rows": former_calibration_rows(values)}
    if "mp" in methods:
        former["criterion"] = FORMER  # where it is in use: the others have their default
    return {**former, **before, **values}
