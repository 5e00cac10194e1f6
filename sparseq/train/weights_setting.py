"""What `--class-weights` accepts, before the classes are known."""

import math
from collections.abc import Sequence
from typing import Protocol

from sparseq.errors import InputError
from sparseq_kernels.untrusted import quoted

BALANCED = "balanced"


class Settings(Protocol):
    """What is looked at of a `Recipe`, which is built on this module."""

    @property
    def class_weights(self) -> tuple[str, ...]: ...
    @property
    def kd_alpha(self) -> float: ...
    @property
    def augment_alpha(self) -> float | None: ...

    def uses(self, method: str) -> bool: ...


def check_class_weights(recipe: Settings) -> None:
    """Raises InputError for anything else than "balanced" or NAME=WEIGHT, and where no label is trained on."""
    given = recipe.class_weights
    if given and given != (BALANCED,):
        weights_by_name(given)
    if given and recipe.uses("kd") and recipe.kd_alpha == 1 and recipe.augment_alpha in (None, 1):
        raise InputError("--class-weights weights the loss on the labels, and with --kd-alpha 1 there is none")


def weights_by_name(given: Sequence[str]) -> dict[str, float]:
    """The weight of each class that is named. Raises InputError for other forms, and for weights not above 0."""
    found: dict[str, float] = {}
    for part in given:
        name, _, text = part.rpartition("=")
        try:
            weight = float(text)
        except ValueError:
            weight = math.nan
        if not name or not (0 < weight < math.inf) or name.strip() in found:
            raise InputError(
                f"--class-weights wants none, {BALANCED}, or a positive weight for each of some classes, such as "
                f"negative=1,positive=3, not {quoted(part)}"
            )
        found[name.strip()] = weight
    return found
