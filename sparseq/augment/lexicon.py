"""WordNet's information on a word without its context: its likely readings, whether it is a name, its phrases."""

import re
from collections.abc import Sequence

from sparseq.augment.morphology import Reading, readings
from sparseq.augment.wndb import Pos
from sparseq.augment.wordnet import WordNet

PLAIN = re.compile(r"[a-z]{3,}")
_LONGEST_COLLOCATION = 5
# A reading of a word is accepted if it has this share of the tagged uses.
LIKELY_READING = 0.8
# Tagged uses are counted per lemma; an inflected form has only a part of them.
_INFLECTED_SHARE = 0.3
# Endings of words that may be missing from WordNet without being names: "funnier", "filmmaking".
_KNOWN_ENDINGS = ("er", "est", "ing", "ed", "ly", "s", "less", "ness", "able", "ish")


class Lexicon:
    """Readings and phrases of words, each looked up once.

    Args:
        wordnet: an open `WordNet`.
        stop_words: words that are not read.
    """

    def __init__(self, wordnet: WordNet, stop_words: frozenset[str]) -> None:
        self.wordnet = wordnet
        self.stop_words = stop_words
        self._readings: dict[str, tuple[tuple[Reading, float], ...]] = {}
        self._bases: dict[str, tuple[str, ...]] = {}
        self._beginning: dict[str, tuple[str, ...]] = {}
        self._named: dict[str, bool] = {}
        split = [lemma.split(" ", 2) for lemma in wordnet.collocations]
        self._starts = frozenset(words[0] for words in split)
        self._first_two = frozenset((words[0], words[1]) for words in split)

    def weighed(self, word: str) -> tuple[tuple[Reading, float], ...]:
        """Readings of a word with their number of tagged uses (a tenth for untagged ones)."""
        if word not in self._readings:
            weighed = []
            for reading in readings(self.wordnet, word):
                uses = sum(self.wordnet.counts(reading.lemma, reading.pos)) or 0.1
                weighed.append((reading, uses * (1 if reading.form == "base" else _INFLECTED_SHARE)))
            self._readings[word] = tuple(weighed)
        return self._readings[word]

    def is_mostly(self, pos: Pos, word: str) -> bool:
        """Whether a word most often has this part of speech."""
        weighed = self.weighed(word) if PLAIN.fullmatch(word) and word not in self.stop_words else ()
        return bool(weighed) and max(weighed, key=lambda pair: pair[1])[0].pos == pos

    def is_name(self, word: str) -> bool:
        """Whether a lower-case word is a name, or missing from WordNet like most names ("shanghai", "spielberg")."""
        if word not in self._named:
            self._named[word] = word.isalpha() and word not in self.stop_words and self._find_name(word)
        return self._named[word]

    def _find_name(self, word: str) -> bool:
        weighed = self.weighed(word)
        if not weighed:
            return not word.endswith(_KNOWN_ENDINGS)
        nouns = [reading.lemma for reading, _ in weighed if reading.pos == "noun"]
        if not nouns or any(reading.pos == "adj" for reading, _ in weighed):
            return False
        synsets = (self.wordnet.synset("noun", self.wordnet.offsets(lemma, "noun")[0]) for lemma in nouns)
        return all(synset.instance for synset in synsets)

    def collocated(self, words: Sequence[str], i: int) -> bool:
        """Whether word number `i` is part of a multiword entry of WordNet ("high school", "all in all")."""
        for first in range(max(0, i - _LONGEST_COLLOCATION + 1), min(i, len(words) - 2) + 1):
            starts = self._starting(words[first])
            if not starts:
                continue
            seconds = self._bases_of(words[first + 1])
            if not any((start, second) in self._first_two for start in starts for second in seconds):
                continue
            for last in range(max(i, first + 1), min(len(words), first + _LONGEST_COLLOCATION)):
                middle, ends = words[first + 1 : last], self._bases_of(words[last])
                phrases = (" ".join([start, *middle, end]) for start in starts for end in ends)
                if any(phrase in self.wordnet.collocations for phrase in phrases):
                    return True
        return False

    def _starting(self, word: str) -> tuple[str, ...]:
        """The word and its base forms, if they begin a multiword entry."""
        if word not in self._beginning:
            self._beginning[word] = tuple(base for base in self._bases_of(word) if base in self._starts)
        return self._beginning[word]

    def _bases_of(self, word: str) -> tuple[str, ...]:
        """A word and its base forms."""
        if word not in self._bases:
            self._bases[word] = tuple({word: None, **{reading.lemma: None for reading, _ in self.weighed(word)}})
        return self._bases[word]
