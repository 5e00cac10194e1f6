"""How likely each meaning of a word is."""

import math

from sparseq.augment.wndb import Pos
from sparseq.augment.wordnet import WordNet

# WordNet's order of the meanings counts as much as this many tagged uses.
_ORDER_USES = 2.0


def sense_shares(wordnet: WordNet, lemma: str, pos: Pos) -> dict[int, float]:
    """Share of the uses of `lemma` by offset of the synset, in WordNet's order; they sum to 1.

    Tagged uses are few, so that the order, which WordNet's editors gave, counts beside them. Meaning number k has
    k ** -1.5 of it: the frequencies of a word's meanings fall about so (Kilgarriff 2004, "How dominant is the
    commonest sense of a word?").
    """
    counts = wordnet.counts(lemma, pos)
    # Root and quotient are exactly rounded on every processor; a power need not be.
    order = [1 / math.sqrt(rank**3) for rank in range(1, len(counts) + 1)]
    scale = _ORDER_USES / sum(order) if order else 0.0
    total = sum(counts) + _ORDER_USES
    offsets = wordnet.offsets(lemma, pos)
    return {o: (count + scale * rank) / total for o, count, rank in zip(offsets, counts, order, strict=True)}
