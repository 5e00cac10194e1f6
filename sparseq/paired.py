"""A comparison of two models on the same rows: the difference of their accuracies and its standard error."""

from collections.abc import Sequence
from dataclasses import dataclass

from sparseq.errors import InputError


@dataclass(frozen=True)
class PairedAnswers:
    """Counts of correct answers of two models on the same rows.

    rows: scored by both models. only_first, only_second: rows that only that model answers correctly.

    Rows that both answer correctly, or both incorrectly, say nothing about the difference (McNemar 1947). The
    difference on the same rows varies less than that of two accuracies measured on different rows.
    """

    rows: int
    only_first: int
    only_second: int

    @classmethod
    def of(cls, first: Sequence[bool], second: Sequence[bool]) -> "PairedAnswers":
        """The counts, from whether each row is answered correctly by the first and by the second model.

        Raises InputError if the numbers of rows differ.
        """
        if len(first) != len(second) or not first:
            raise InputError(f"paired answers need the same rows of both models, not {len(first)} and {len(second)}")
        pairs = list(zip(first, second, strict=True))
        return cls(len(pairs), pairs.count((True, False)), pairs.count((False, True)))

    @property
    def lost(self) -> float:
        """The first model's accuracy minus the second's, as a fraction."""
        return (self.only_first - self.only_second) / self.rows

    @property
    def standard_error(self) -> float:
        """The standard error of `lost` over the choice of rows.

        It does not include the variation between training seeds.
        """
        return float((self.only_first + self.only_second - self.rows * self.lost**2) ** 0.5 / self.rows)
