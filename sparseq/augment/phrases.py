"""Pairs of words that are a fixed phrase or a title in some texts ("shanghai noon")."""

import numpy as np
from numpy.typing import NDArray

from sparseq.augment.corpus import BOUNDARY, Corpus

# Two words are a phrase if they occur together this often, in different contexts, and in this share of the uses of
# the rarer one.
_FEWEST_MEETINGS = 3
_SHARE_OF_MEETINGS = 0.2


def phrases(corpus: Corpus, words: NDArray[np.bool_]) -> frozenset[tuple[str, str]]:
    """Pairs of neighbours that occur together often and in varied contexts, so that a repeated text makes no phrase.

    Args:
        corpus: the texts.
        words: bool [numbers], the words that phrases can consist of.
    """
    ids = corpus.ids.astype(np.int64)
    places = np.flatnonzero(words[ids[1:-2]] & words[ids[2:-1]]) + 1
    codes = ids[places] * len(words) + ids[places + 1]
    order = np.argsort(codes, kind="stable")
    codes, places = codes[order], places[order]
    starts = np.flatnonzero(np.append(True, codes[1:] != codes[:-1])) if len(codes) else np.zeros(0, np.int64)
    meetings = np.diff(np.append(starts, len(codes)))
    one, other = np.divmod(codes[starts], len(words))
    rarer = np.minimum(corpus.counts[one], corpus.counts[other])
    often = meetings >= np.maximum(_FEWEST_MEETINGS, _SHARE_OF_MEETINGS * rarer)
    found = []
    for group in np.flatnonzero(often):
        met = places[starts[group] : starts[group] + meetings[group]]
        if any(len(set(ids[beside].tolist()) - {BOUNDARY}) > 1 for beside in (met - 1, met + 2)):
            found.append((corpus.names[one[group]], corpus.names[other[group]]))
    return frozenset(found)
