"""How the texts of a dataset use words: how often, next to which words, with which labels, in which phrases."""

import random
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sparseq.augment.contexts import Contexts
from sparseq.augment.corpus import BOUNDARY, Corpus
from sparseq.augment.phrases import phrases
from sparseq.augment.thesaurus import DIGITS, Synonym
from sparseq.augment.tokens import Token
from sparseq.augment.wndb import Pos

# Texts with fewer words than this are too short to estimate frequencies from.
_FEWEST_WORDS = 20_000
# A replacement needs this share of all words, and of the uses of the word that it replaces.
_SHARE_OF_WORDS = 5e-6
_SHARE_OF_WORD = 0.03
# The thresholds below, and those of `thesaurus`, were chosen on SST-2's training sentences by reading replacements.
# With them 8.0 % of the words are replaced where 15 % are asked for, and 5 of 50 replacements read as bad.
#
# The least product of WordNet's evidence for a synonym and its similarity to the word. Nouns and verbs that occur in
# the same places ("level", "degree") differ in meaning more often than adjectives and adverbs do.
_LEAST: dict[Pos, float] = {"adj": 0.035, "adv": 0.03, "noun": 0.05, "verb": 0.06}
# The same if WordNet alone makes the synonym likely (`Synonym.likely`).
_LEAST_OF_LIKELY = 0.02
# An option needs this share of the weight of the best one.
_LEAST_OF_BEST = 0.25
# The largest distance between the label shares of two words' texts: half the sum of their differences.
_LABEL_DISTANCE = 0.3
# The label shares of all texts have the weight of this many uses of the word.
_PRIOR_USES = 5
# If the texts have more characters than this, only a sample of rows is counted.
MOST_CHARACTERS = 8_000_000
_MOST_LABELS = 100


class Option(NamedTuple):
    """A possible replacement: its form and base form, and a weight relative to other options."""

    form: str
    lemma: str
    weight: float = 1.0


class WordUsage:
    """Statistics of the words of texts, in lower case.

    Args:
        texts: the texts; if they have more than eight million characters, a random sample of rows with about that many
            is counted, always the same one.
        ignored: words that cannot be part of a phrase, such as function words.
        labels: the class of each text, from 0; None if there are none or they are not classes.
        more: returns more texts that show which words occur in the same places; called at most once, if `enough`.
        texts_per_row: how many adjacent texts make a row, for example 2 for pairs; a row is counted completely or not
            at all.

    Attributes:
        corpus: the texts that are counted.
        words: their number of words.
    """

    def __init__(
        self,
        texts: Sequence[str],
        ignored: frozenset[str] = frozenset(),
        labels: Sequence[int] | None = None,
        more: Callable[[], Iterable[str]] | None = None,
        texts_per_row: int = 1,
    ) -> None:
        counted = _sample(texts, texts_per_row)
        self.corpus = Corpus([texts[i] for i in counted])
        self._ignored = ignored
        self._labels = None if labels is None else np.asarray([labels[i] for i in counted])
        self._more = more
        spoken = [any(map(str.isalnum, name)) for name in self.corpus.names]
        self.words = int(self.corpus.counts[spoken].sum())

    @property
    def enough(self) -> bool:
        """Whether the texts are long enough to tell a common word from a rare one."""
        return self.words >= _FEWEST_WORDS

    def comparable(self, word: str) -> bool:
        """Whether enough is known about a word to compare it with others."""
        return self._contexts.known(self.corpus.numbers.get(word, BOUNDARY))

    def options(self, word: str, pos: Pos, synonyms: Iterable[Synonym]) -> tuple[Option, ...]:
        """The synonyms that the texts use like `word`, with the same labels."""
        known = [synonym for synonym in synonyms if self._common(synonym.form, word)]
        known = [synonym for synonym in known if self._label_distance(synonym.form, word) <= _LABEL_DISTANCE]
        if not known or not self.comparable(word):
            return ()
        numbers = self.corpus.numbers
        likeness = self._contexts.likeness(numbers[word], [numbers[synonym.form] for synonym in known])
        found = []
        for synonym, alike in zip(known, likeness, strict=True):
            weight = round(synonym.evidence * alike, DIGITS)
            if weight >= (_LEAST_OF_LIKELY if synonym.likely else _LEAST[pos]):
                found.append(Option(synonym.form, synonym.lemma, weight))
        best = max((option.weight for option in found), default=0.0)
        return tuple(option for option in found if option.weight >= _LEAST_OF_BEST * best)

    def phrase(self, token: Token) -> bool:
        """Whether a word and a neighbour make a fixed phrase or title of the texts ("shanghai noon")."""
        return (token.before, token.word) in self._phrases or (token.word, token.after) in self._phrases

    def _common(self, word: str, replaced: str) -> bool:
        """Whether the texts use `word` at least five times in a million words and 3 % as often as `replaced`."""
        uses = self.corpus.count(word)
        return uses >= max(1.0, _SHARE_OF_WORDS * self.words, _SHARE_OF_WORD * self.corpus.count(replaced))

    def _label_distance(self, one: str, other: str) -> float:
        """The distance between the label shares of two words' texts: from 0 to 1, half the sum of the differences."""
        if self._shares is None:
            return 0.0
        one_shares, other_shares = (self._shares[self.corpus.numbers.get(word, 0)] for word in (one, other))
        return round(float(np.abs(one_shares - other_shares).sum() / 2), DIGITS)

    @cached_property
    def _shares(self) -> NDArray[np.float64] | None:
        """float64 [numbers, labels]: label shares of each word's texts, smoothed towards those of all texts."""
        if self._labels is None or not len(self._labels):
            return None
        if self._labels.dtype.kind not in "iu" or self._labels.min() < 0:
            return None  # some texts have none
        if self._labels.max() >= _MOST_LABELS:
            return None
        labels, ids = int(self._labels.max()) + 1, self.corpus.ids
        words = ids > 0
        cells = ids[words].astype(np.int64) * labels + self._labels[self.corpus.text[words]]
        counts = np.bincount(cells, minlength=len(self.corpus.names) * labels).reshape(-1, labels)
        prior = counts.sum(0) / max(1, counts.sum())
        shares: NDArray[np.float64] = (counts + _PRIOR_USES * prior) / (counts.sum(1, keepdims=True) + _PRIOR_USES)
        return shares

    @cached_property
    def _contexts(self) -> Contexts:
        others = self.corpus.read(() if self._more is None else self._more())
        return Contexts(self.corpus.ids, others, self._content)

    @cached_property
    def _phrases(self) -> frozenset[tuple[str, str]]:
        return phrases(self.corpus, self._content)

    @cached_property
    def _content(self) -> NDArray[np.bool_]:
        return np.array([name.isalpha() and name not in self._ignored for name in self.corpus.names])


def _sample(texts: Sequence[str], texts_per_row: int) -> Sequence[int]:
    """The indices of the texts to count: all of them, or those of a random sample of rows.

    Rows are not drawn at regular intervals, because these could coincide with a pattern in the data, such as
    alternating classes.
    """
    characters = sum(map(len, texts))
    if characters <= MOST_CHARACTERS:
        return range(len(texts))
    rows = range(0, len(texts), texts_per_row)
    drawn = random.Random(0).sample(rows, max(1, len(rows) * MOST_CHARACTERS // characters))
    return [i for row in sorted(drawn) for i in range(row, row + texts_per_row)]
