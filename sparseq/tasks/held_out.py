"""Training rows that are set aside to score on, so that recipes are not chosen by the rows they are reported on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from sparseq.errors import InputError
from sparseq.tasks.spec import TEXTS

if TYPE_CHECKING:
    from datasets import Dataset

HELD_OUT = "held_out"
"""The name of the split."""


def hold_out(rows: Dataset, count: int) -> tuple[Dataset, Dataset]:
    """(the training rows that are left, `count` held-out rows), both in the order of the file.

    Held-out rows are drawn among the labelled rows whose text is no part of another row's text: where a file has
    sentences and their phrases (SST-2), these are the sentences. Then every training row whose text is part of a
    held-out one is left out. So no training row repeats a held-out row or a part of it. Texts are compared word by
    word, without regard to spacing and case; the two texts of a pair count as one text.

    The choice does not depend on a run's seed: runs with different seeds are scored on the same rows.

    Raises InputError if there are fewer such rows, or if no training row would be left.
    """
    texts = _texts(rows)
    everything = _Places(texts)
    chosen: list[int] = []
    for number in np.random.default_rng(0).permutation(np.flatnonzero(_labelled(rows))).tolist():
        if len(chosen) == count:
            break
        if all(other == number for other in everything.of(texts[number])):
            chosen.append(number)
    if len(chosen) < count:
        raise InputError(
            f"held_out_rows is {count:,}, but only {len(chosen):,} labelled training rows are no part of another row: "
            "give fewer"
        )
    held = _Places([texts[number] for number in chosen])
    left = [number for number, text in enumerate(texts) if not any(True for _ in held.of(text))]
    if not left:
        raise InputError(f"held_out_rows is {count:,}, which leaves no training row: give fewer")
    return rows.select(left), rows.select(sorted(chosen))


class _Places:
    """Finds the texts that contain a text, among those with its rarest word."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = texts
        self._with: dict[str, list[int]] = {}
        for number, text in enumerate(texts):
            for word in set(text.split()):
                self._with.setdefault(word, []).append(number)

    def of(self, text: str) -> Iterator[int]:
        """The numbers of the texts that contain `text`."""
        words = text.split()
        among = min((self._with.get(word, []) for word in words), key=len) if words else range(len(self._texts))
        return (number for number in among if text in self._texts[number])


def _texts(rows: Dataset) -> list[str]:
    """One text per row, without case, a space around each word and a tab between the texts of a pair."""
    columns = [rows[name][:] for name in TEXTS if name in rows.column_names]
    return [
        "\t".join(f" {' '.join(text.casefold().split())} " for text in texts) for texts in zip(*columns, strict=True)
    ]


def _labelled(rows: Dataset) -> np.ndarray:
    labels = np.asarray(rows["label"][:], dtype=np.float64)
    return ~(np.isnan(labels) | (labels == -100))
