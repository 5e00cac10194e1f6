"""Texts as one array of numbered words, for counting neighbours at once."""

from collections.abc import Iterable, Sequence
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from sparseq.augment.tokens import pieces

Ids = NDArray[np.int32]

# Occurs twice between two texts, so that words within two places of each other belong to the same text.
BOUNDARY = 0
_MARK = "\0"


class Corpus:
    """The words of some texts, in lower case, and the punctuation between them.

    Args:
        texts: the texts.

    Attributes:
        numbers: the number of each word or piece of punctuation, in order of first use; `BOUNDARY` is not a word.
        names: the inverse of `numbers`.
        ids: int32 [positions], all texts one after another, with two `BOUNDARY` before, between and after them.
        text: int64 [positions], the number of the text at each position; undefined for boundaries.
        counts: int64 [numbers], uses of each number.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        found = _split(texts)
        self.names = list(dict.fromkeys([_MARK, *found]))
        self.numbers = {name: number for number, name in enumerate(self.names)}
        self.ids: Ids = np.fromiter(map(self.numbers.__getitem__, found), np.int32, len(found))
        self.text = np.cumsum(self.ids == BOUNDARY) // 2 - 1
        self.counts = np.bincount(self.ids, minlength=len(self.names))
        self.counts[BOUNDARY] = 0

    def count(self, word: str) -> int:
        """Number of uses of a word in lower case."""
        number = self.numbers.get(word)
        return 0 if number is None else int(self.counts[number])

    def read(self, texts: Iterable[str]) -> Ids:
        """Other texts with this corpus's numbers, in the layout of `ids`; unknown words are `len(names)`."""
        found = _split(list(texts))
        unknown = len(self.names)
        return np.fromiter(map(self.numbers.get, found, repeat(unknown)), np.int32, len(found))


def _split(texts: Sequence[str]) -> list[str]:
    between = f" {_MARK} {_MARK} "
    joined = between.join(["", *texts, ""])
    if joined.count(_MARK) != 2 * (len(texts) + 1):
        joined = between.join(["", *(text.replace(_MARK, " ") for text in texts), ""])
    return pieces(joined)
