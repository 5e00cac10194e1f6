"""The limit on the drop in score (`--max-drop`): what a model is compared with, and what came of it."""

from dataclasses import dataclass, replace
from typing import Protocol

from sparseq.drop import within
from sparseq.errors import InputError


class Settings(Protocol):
    """What is looked at of a `Recipe`, which is built on this module."""

    @property
    def model(self) -> str: ...
    @property
    def teacher(self) -> str | None: ...
    @property
    def epochs(self) -> float: ...
    @property
    def max_drop(self) -> float | None: ...
    @property
    def baseline(self) -> str | None: ...

    def uses(self, method: str) -> bool: ...


def compared_model(recipe: Settings) -> str | None:
    """The model that the score is compared with; None without `max_drop` and `baseline`.

    It is the baseline if one is given, else the teacher of kd, else, if nothing is trained, the model itself. Raises
    InputError if there is none of them.
    """
    if recipe.baseline is not None:
        return recipe.baseline
    if recipe.max_drop is None:
        return None
    if recipe.uses("kd"):
        return recipe.teacher
    if not recipe.epochs:
        return recipe.model
    raise InputError(
        "--max-drop has nothing to compare the score with: this run has no teacher (kd), and trains its model; name a "
        "fine-tuned model as --baseline, such as the folder of a run"
    )


@dataclass(frozen=True)
class Drop:
    """How far a score is below another model's, on the same validation rows.

    Attributes:
        baseline: the other model, as the recipe names it.
        digest: of that model's weights.
        baseline_score: its score, a fraction.
        points: how many points the score is below that (`sparseq.drop`); negative if it is above.
        standard_error: of `points`, in points, over the choice of rows. A drop of less than two of them may be chance.
        limit: the most points that are allowed; None if there is no limit.
        passed: whether the drop is within the limit; None if there is none.
    """

    baseline: str
    digest: str
    baseline_score: float
    points: float
    standard_error: float
    limit: float | None = None
    passed: bool | None = None

    @property
    def side(self) -> str:
        """Where the score is: "below", or "above" the baseline's."""
        return "below" if self.points > 0 else "above"

    def limited(self, limit: float | None) -> "Drop":
        """The same drop under another limit."""
        return replace(self, limit=limit, passed=None if limit is None else within(self.points, limit))

    def described(self) -> str:
        """The drop in one sentence without a full stop, and whether it may be chance."""
        points = f"{abs(self.points):.2f} points {self.side}"
        found = f"the score is {points} that of {self.baseline} ({self.baseline_score:.4f})"
        chance = ", which may be chance" if abs(self.points) < 2 * self.standard_error else ""
        return f"{found}, standard error {self.standard_error:.2f}{chance}"

    def refusal(self) -> str:
        """The sentence for a drop that is too large."""
        return f"{self.described()}; --max-drop allows {self.limit:g}"
