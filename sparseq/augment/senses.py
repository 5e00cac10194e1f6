"""How likely each meaning of a word is."""

from sparseq.augment.wndb import Pos
from sparseq.augment.wordnet import WordNet

# What WordNet's order of the meanings counts, in tagged uses, and how much less each next meaning has of it: the
# frequencies of a word's meanings fall about so (Kilgarriff 2004, "How dominant is the commonest sense of a word?").
_ORDER_USES = 2.0
_FALL = 1.5


def sense_shares(wordnet: WordNet, lemma: str, pos: Pos) -> dict[int, float]:
    """Share of the uses of `lemma` by offset of the synset, in WordNet's order; they sum to 1.

    Tagged uses are few, so that the order, which WordNet's editors gave, counts beside them.
    """
    counts = wordnet.counts(lemma, pos)
    order = [(number + 1) ** -_FALL for number in range(len(counts))]
    scale = _ORDER_USES / sum(order) if order else 0.0
    total = sum(counts) + _ORDER_USES
    offsets = wordnet.offsets(lemma, pos)
    return {o: (count + scale * rank) / total for o, count, rank in zip(offsets, counts, order, strict=True)}
