"""Two models' answers to the same rows, and what the difference of their accuracies is worth."""

from collections.abc import Sequence
from dataclasses import dataclass

from sparseq.errors import InputError


@dataclass(frozen=True)
class PairedAnswers:
    """rows: scored by both models. only_first, only_second: rows that one of them alone has right.

    Rows that both have right, or both wrong, tell nothing about the difference (McNemar 1947): it varies less than two
    accuracies on rows of their own would.
    """

    rows: int
    only_first: int
    only_second: int

    @classmethod
    def of(cls, first: Sequence[bool], second: Sequence[bool]) -> "PairedAnswers":
        """From whether each row is answered rightly, by either model. Raises InputError for other numbers of rows."""
        if len(first) != len(second) or not first:
            raise InputError(f"paired answers need the same rows of both models, not {len(first)} and {len(second)}")
        pairs = list(zip(first, second, strict=True))
        return cls(len(pairs), pairs.count((True, False)), pairs.count((False, True)))

    @property
    def lost(self) -> float:
        """The first model's accuracy less the second's, as a fraction."""
        return (self.only_first - self.only_second) / self.rows

    @property
    def standard_error(self) -> float:
        """Of `lost`, over the choice of rows; the training's own chance (its seed) is not in it."""
        return float((self.only_first + self.only_second - self.rows * self.lost**2) ** 0.5 / self.rows)
