"""Similarity of words by the places they occur in: the cosine of the pointwise mutual information with neighbours.

Positive pointwise mutual information of words and their neighbours: Church and Hanks 1990. The cosine of such vectors
as similarity of meaning: Bullinaria and Levy 2007. Counts of neighbours to the power 0.75, which limits the weight of
rare neighbours: Levy, Goldberg and Dagan 2015.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sparseq.augment.corpus import BOUNDARY, Ids

# Words with fewer uses than this are not compared, because they have too few neighbours.
_FEWEST_USES = 8
# The number of most frequent words and punctuation marks that count as neighbours.
_NEIGHBOURS = 3000
_PLACES = (-2, -1, 1, 2)
_COLUMNS = len(_PLACES) * _NEIGHBOURS
_SMOOTHING = 0.75
# Odd multipliers for a 64-bit hash of a run of five numbers.
_HASH = np.array([1, 0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93], np.uint64)

_Cells = NDArray[np.int64]


class Contexts:
    """Neighbours of words, two to the left and two to the right; each place counts separately.

    Args:
        ids: texts as `Corpus.ids`; repeated runs of five words count once.
        others: more texts with the same numbering.
        wanted: bool [numbers], the words to compare.
    """

    def __init__(self, ids: Ids, others: Ids, wanted: NDArray[np.bool_]) -> None:
        rows, columns, uses = _count(ids, others, wanted)
        rows, self._columns, self._values = _weigh(rows, columns, uses)
        self._starts = np.searchsorted(rows, np.arange(len(wanted) + 1))
        self._scratch = np.zeros(_COLUMNS)

    def known(self, number: int) -> bool:
        """Whether any neighbours of a word are known."""
        return bool(self._starts[number] < self._starts[number + 1])

    def likeness(self, one: int, others: Sequence[int]) -> list[float]:
        """The similarity of each of `others` to `one`, from 0 to 1.

        0: no neighbour in common, or too few uses to tell. 1: the same neighbours.
        """
        own = slice(self._starts[one], self._starts[one + 1])
        self._scratch[self._columns[own]] = self._values[own]
        found = []
        for other in others:
            its = slice(self._starts[other], self._starts[other + 1])
            found.append(float(self._values[its] @ self._scratch[self._columns[its]]))
        self._scratch[self._columns[own]] = 0.0
        return found


def _count(ids: Ids, others: Ids, wanted: NDArray[np.bool_]) -> tuple[_Cells, _Cells, _Cells]:
    """How often each wanted word has each of the most frequent words or punctuation marks in each neighbouring place.

    Returns:
        int64 [pairs] each, sorted by word: the number of the word, the column of the neighbour and place, the count.
    """
    numbers = len(wanted)
    both = np.bincount(ids, minlength=numbers)[:numbers] + np.bincount(others, minlength=numbers)[:numbers]
    neighbours = np.argsort(-both, kind="stable")[:_NEIGHBOURS]
    column = np.full(numbers + 1, -1, np.int64)  # one more for words that only `others` has
    column[neighbours] = np.arange(len(neighbours))
    wanted = np.append(wanted & (both >= _FEWEST_USES), False)
    codes = [_codes(ids, _first_of_each(ids), wanted, column), _codes(others, None, wanted, column)]
    found, uses = np.unique(np.concatenate(codes), return_counts=True)
    rows, columns = np.divmod(found, _COLUMNS)
    return rows, columns, uses


def _weigh(rows: _Cells, columns: _Cells, uses: _Cells) -> tuple[_Cells, _Cells, NDArray[np.float64]]:
    """The positive pointwise mutual information of the result of `_count`, with each word's vector scaled to length 1.

    Returns:
        Words, columns and float64 values of the pairs with positive information, in the same order.
    """
    of_row = np.bincount(rows, weights=uses)
    of_column = np.bincount(columns, weights=uses, minlength=_COLUMNS) ** _SMOOTHING
    information = np.log(uses * of_column.sum() / (of_row[rows] * of_column[columns]))
    positive = information > 0
    rows, columns, information = rows[positive], columns[positive], information[positive]
    lengths = np.sqrt(np.bincount(rows, weights=information**2))
    return rows, columns, information / lengths[rows]


def _first_of_each(ids: Ids) -> NDArray[np.int64]:
    """The middle positions of the first of all equal runs of five, in order."""
    if len(ids) < 5:
        return np.zeros(0, np.int64)
    hashes = np.zeros(len(ids) - 4, np.uint64)
    for place, factor in enumerate(_HASH):
        hashes += ids[place : len(ids) - 4 + place].astype(np.uint64) * factor
    return np.sort(np.unique(hashes, return_index=True)[1]) + 2


def _codes(
    ids: Ids, middles: NDArray[np.int64] | None, wanted: NDArray[np.bool_], column: NDArray[np.int64]
) -> NDArray[np.int64]:
    """A number for each pair of a wanted word and a neighbour in its place."""
    if middles is None:
        middles = np.arange(2, max(2, len(ids) - 2))
    middles = middles[wanted[ids[middles]] & (ids[middles] != BOUNDARY)]
    found = []
    for number, place in enumerate(_PLACES):
        neighbour = column[ids[middles + place]]
        known = neighbour >= 0
        base = ids[middles[known]].astype(np.int64) * _COLUMNS
        found.append(base + number * _NEIGHBOURS + neighbour[known])
    return np.concatenate(found)
