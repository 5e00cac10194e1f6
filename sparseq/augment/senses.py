"""The likelihood of each meaning of a word."""

import math

from sparseq.augment.wndb import Pos
from sparseq.augment.wordnet import WordNet

# WordNet's order of the meanings has the weight of this many tagged uses.
_ORDER_USES = 2.0


def sense_shares(wordnet: WordNet, lemma: str, pos: Pos) -> dict[int, float]:
    """The share of the uses of `lemma` by offset of the synset, in WordNet's order; the shares sum to 1.

    There are few tagged uses, so the order given by WordNet's editors counts too. Meaning number k has a weight of k **
    -1.5 in it; the frequencies of a word's meanings decrease about like that (Kilgarriff 2004, "How dominant is the
    commonest sense of a word?").
    """
    counts = wordnet.counts(lemma, pos)
    # Root and quotient are correctly rounded on every processor; a power may not be.
    order = [1 / math.sqrt(rank**3) for rank in range(1, len(counts) + 1)]
    scale = _ORDER_USES / sum(order) if order else 0.0
    total = sum(counts) + _ORDER_USES
    offsets = wordnet.offsets(lemma, pos)
    return {o: (count + scale * rank) / total for o, count, rank in zip(offsets, counts, order, strict=True)}
