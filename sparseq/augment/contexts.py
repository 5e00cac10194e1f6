"""Which words stand in the same places of some texts: the cosine of their neighbours' pointwise mutual information.

Positive pointwise mutual information of words and their neighbours: Church and Hanks 1990; the cosine of such vectors
as likeness of meaning: Bullinaria and Levy 2007.
"""

import math
from collections import Counter
from collections.abc import Iterable

from sparseq.augment.tokens import pieces

# Of rarer words the neighbours tell little, and of rarer neighbours there is no need.
_FEWEST_USES = 15
_NEIGHBOURS = 1500

_Vector = dict[tuple[str, int], float]


class Contexts:
    """Neighbours of the words of some texts.

    Args:
        texts: the texts; what is repeated in them, phrases of three words and more, counts once.
        counts: of their words, in lower case.
    """

    def __init__(self, texts: Iterable[str], counts: Counter[str]) -> None:
        neighbours = {word for word, _ in counts.most_common(_NEIGHBOURS)} | {""}
        triples: set[tuple[str, ...]] = set()
        for text in texts:
            words = ["", *pieces(text), ""]
            triples.update(zip(words, words[1:], words[2:], strict=False))
        self._found: dict[str, Counter[tuple[str, int]]] = {}
        self._totals: Counter[tuple[str, int]] = Counter()
        for before, word, after in triples:
            if counts[word] < _FEWEST_USES or not word.isalpha():
                continue
            own = self._found.setdefault(word, Counter())
            for neighbour in ((before, -1), (after, 1)):
                if neighbour[0] in neighbours:
                    own[neighbour] += 1
                    self._totals[neighbour] += 1
        self._total = self._totals.total()
        self._vectors: dict[str, _Vector] = {}

    def likeness(self, one: str, other: str) -> float:
        """From 0, no neighbour in common or too few uses to tell, to 1, the same neighbours."""
        shorter, longer = sorted((self._vector(one), self._vector(other)), key=len)
        return sum(value * longer.get(neighbour, 0.0) for neighbour, value in shorter.items())

    def _vector(self, word: str) -> _Vector:
        if word not in self._vectors:
            own = self._found.get(word, Counter())
            uses = own.total()
            vector = {}
            for neighbour, count in sorted(own.items()):  # sums must not depend on the order of a set
                information = math.log(count * self._total / (uses * self._totals[neighbour]))
                if information > 0:
                    vector[neighbour] = information
            length = math.sqrt(math.fsum(value * value for value in vector.values()))
            self._vectors[word] = {neighbour: value / length for neighbour, value in vector.items()}
        return self._vectors[word]
