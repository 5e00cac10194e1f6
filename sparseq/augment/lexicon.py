"""What WordNet says of a word whatever stands around it: its likely readings, its synonyms, its phrases."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import takewhile

from sparseq.augment.morphology import Reading, inflect, readings
from sparseq.augment.wndb import Pos, Synset, Word
from sparseq.augment.wordnet import WordNet
from sparseq.augment.words import AVOIDED, DATED_SENSES, WEAKENING

PLAIN = re.compile(r"[a-z]{3,}")
_LONGEST_COLLOCATION = 5
# A reading of a word is trusted when it has this share of the tagged uses, and a meaning of a reading when this share.
LIKELY_READING = 0.8
_LIKELY_SENSE = 0.5
_POSSIBLE_SENSE = 0.3
# Tagged uses are counted by lemma; of them an inflected form has only a part.
_INFLECTED_SHARE = 0.3
# Endings of words that WordNet may lack without their being names: "funnier", "filmmaking".
_KNOWN_ENDINGS = ("er", "est", "ing", "ed", "ly", "s", "less", "ness", "able", "ish")


@dataclass(frozen=True)
class Synonym:
    """A word that may stand for another.

    Attributes:
        form: inflected as the word that it replaces.
        lemma: its base form.
        likely: whether this is most likely what both mean. If not, it should be seen in the texts that they are alike.
        tagged: whether WordNet's annotators met it in this meaning; if not, it may be a rare word.
    """

    form: str
    lemma: str
    likely: bool
    tagged: bool


class Lexicon:
    """Readings, synonyms and phrases of words, each looked up once.

    Args:
        wordnet: an open `WordNet`.
        stop_words: words that are neither read nor given as synonyms.
    """

    def __init__(self, wordnet: WordNet, stop_words: frozenset[str]) -> None:
        self.wordnet = wordnet
        self.stop_words = stop_words
        self._readings: dict[str, tuple[tuple[Reading, float], ...]] = {}
        self._synonyms: dict[Reading, tuple[Synonym, ...]] = {}
        self._has_synonyms: dict[str, bool] = {}
        self._bases: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {}
        self._named: dict[str, bool] = {}
        ends = [lemma.split(" ") for lemma in wordnet.collocations]
        self._starts = frozenset(words[0] for words in ends)
        self._ends = frozenset(words[-1] for words in ends)

    def weighed(self, word: str) -> tuple[tuple[Reading, float], ...]:
        """Readings of a word with their number of tagged uses (of untagged ones a tenth)."""
        if word not in self._readings:
            weighed = []
            for reading in readings(self.wordnet, word):
                uses = sum(self.wordnet.counts(reading.lemma, reading.pos)) or 0.1
                weighed.append((reading, uses * (1 if reading.form == "base" else _INFLECTED_SHARE)))
            self._readings[word] = tuple(weighed)
        return self._readings[word]

    def is_mostly(self, pos: Pos, word: str) -> bool:
        """Whether a word is most often of this part of speech."""
        weighed = self.weighed(word) if PLAIN.fullmatch(word) and word not in self.stop_words else ()
        return bool(weighed) and max(weighed, key=lambda pair: pair[1])[0].pos == pos

    def is_name(self, word: str) -> bool:
        """Whether a lower-case word is a name, or is in no dictionary as most names are ("shanghai", "spielberg")."""
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

    def has_synonyms(self, word: str) -> bool:
        """Whether any reading of the word has a synonym."""
        if word not in self._has_synonyms:
            self._has_synonyms[word] = any(self.synonyms(reading) for reading, _ in self.weighed(word))
        return self._has_synonyms[word]

    def collocated(self, words: list[str], i: int) -> bool:
        """Whether word number `i` is part of a multiword entry of WordNet ("high school", "all in all")."""
        for first in range(max(0, i - _LONGEST_COLLOCATION + 1), i + 1):
            starts, _ = self._phrase_ends(words[first])
            for last in range(max(i, first + 1), min(len(words), first + _LONGEST_COLLOCATION)) if starts else ():
                _, ends = self._phrase_ends(words[last])
                middle = words[first + 1 : last]
                phrases = (" ".join([start, *middle, end]) for start in starts for end in ends)
                if any(phrase in self.wordnet.collocations for phrase in phrases):
                    return True
        return False

    def _phrase_ends(self, word: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Those of a word and its base forms that begin, and that end, a multiword entry."""
        if word not in self._bases:
            bases = tuple({word: None, **{reading.lemma: None for reading, _ in self.weighed(word)}})
            starts = tuple(base for base in bases if base in self._starts)
            self._bases[word] = starts, tuple(base for base in bases if base in self._ends)
        return self._bases[word]

    def synonyms(self, reading: Reading) -> tuple[Synonym, ...]:
        """Synonyms in the reading's form, those that are likely first."""
        if reading not in self._synonyms:
            found = sorted(self._find_synonyms(reading), key=lambda synonym: not synonym.likely)
            unique: dict[str, Synonym] = {}
            for synonym in found:
                unique.setdefault(synonym.form, synonym)
            self._synonyms[reading] = tuple(unique.values())
        return self._synonyms[reading]

    def _find_synonyms(self, reading: Reading) -> Iterator[Synonym]:
        lemma, pos = reading.lemma, reading.pos
        if lemma in DATED_SENSES:
            return
        for sense, offset in enumerate(self.wordnet.offsets(lemma, pos)):
            share = self._sense_share(lemma, pos, sense)
            if share < _POSSIBLE_SENSE or (pos in ("noun", "verb") and (sense or share < _LIKELY_SENSE)):
                continue  # nouns and verbs that stand in the same places ("level", "degree") often mean other things
            synset = self.wordnet.synset(pos, offset)
            own = next((word for word in synset.words if word.lemma.lower() == lemma), None)
            if own is None or own.lemma != lemma or synset.instance:
                continue
            for word, likely in (*self._usable(synset, offset, own, reading), *self._of_heads(synset, own, reading)):
                form = inflect(self.wordnet, word.lemma, pos, reading.form)
                if form is not None:
                    tagged = any(self.wordnet.counts(word.lemma, pos))
                    yield Synonym(form, word.lemma, likely and sense == 0 and share >= _LIKELY_SENSE, tagged)
        if pos == "adv":
            yield from self._from_adjective(lemma)

    def _of_heads(self, synset: Synset, own: Word, reading: Reading) -> Iterator[tuple[Word, bool]]:
        """Words of the adjective that a satellite is similar to; likely are those that the satellite is defined by.

        "Gorgeous" is "dazzlingly beautiful" and so near to it; "preachy" is similar to "instructive", and yet far.
        A head is not replaced by its satellites, which say more than it does ("dramatic", "hammy").
        """
        for offset in synset.heads:
            for word, likely in self._usable(self.wordnet.synset("adj", offset), offset, own, reading):
                yield word, likely and _defined(synset, word)

    def _from_adjective(self, adverb: str) -> Iterator[Synonym]:
        """Adverbs of the synonyms of the adjective that an adverb comes from."""
        adjective = self.wordnet.adjective(adverb)
        if adjective is None or self._sense_share(adverb, "adv", 0) < _LIKELY_SENSE:
            return
        for synonym in self.synonyms(Reading("adj", adjective, "base")):
            for made in _adverbs(synonym.lemma):
                own_sense = (
                    len(self.wordnet.offsets(made, "adv")) == 1 and self.wordnet.adjective(made) == synonym.lemma
                )
                if own_sense and made != adverb and made not in AVOIDED | DATED_SENSES:
                    yield replace(synonym, form=made, lemma=made)

    def _usable(self, synset: Synset, offset: int, own: Word, reading: Reading) -> Iterator[tuple[Word, bool]]:
        """Words that fit the same places as `own` does, and whether they mean this in most of their uses."""
        pos = reading.pos
        for word in synset.words:
            lemma = word.lemma
            if lemma == own.lemma or PLAIN.fullmatch(lemma) is None or lemma in self.stop_words | AVOIDED:
                continue
            if word.marker not in ("", own.marker) or not word.frames >= own.frames or _same_root(lemma, own.lemma):
                continue
            if pos == "noun" and lemma.endswith(("ing", "ness")) and not own.lemma.endswith(("ing", "ness")):
                continue
            if pos == "noun" and lemma.endswith("s") and inflect(self.wordnet, lemma, pos, "plural") is None:
                continue  # takes a plural verb ("surroundings")
            share = self._sense_share(lemma, pos, self.wordnet.offsets(lemma, pos).index(offset))
            if share < (_POSSIBLE_SENSE if pos in ("adj", "adv") else _LIKELY_SENSE):
                continue
            if pos == "adj" and self._degree(lemma) != self._degree(own.lemma):
                continue
            uses = dict(self.weighed(lemma))
            same = sum(weight for r, weight in uses.items() if r.pos == pos and r.form == "base")
            if same >= LIKELY_READING * sum(uses.values()):
                yield word, share >= _LIKELY_SENSE

    def _degree(self, adjective: str) -> str:
        """The ending of a comparative or superlative that is a lemma of its own ("bigger", "greatest"), or ""."""
        for ending in ("er", "est"):
            stem = adjective.removesuffix(ending)
            bases = (stem, stem + "e", re.sub("i$", "y", stem), *self.wordnet.bases(adjective, "adj"))
            if stem != adjective and any(self.wordnet.offsets(base, "adj") for base in bases if base != adjective):
                return ending
        return ""

    def _sense_share(self, lemma: str, pos: Pos, sense: int) -> float:
        """Share of the uses of `lemma` in sense number `sense` (from 0), each other sense counted once too often.

        The one more makes the share of a word with many senses and few tagged uses small, as it is mere chance then.
        It is 0 for a sense that was never tagged, but for the only sense of an adjective or adverb: those of nouns and
        verbs are often not what a text means ("murphy": a potato).
        """
        counts = self.wordnet.counts(lemma, pos)
        if len(counts) == 1 and pos in ("adj", "adv"):
            return 1.0
        return counts[sense] / max(1, sum(counts) + len(counts) - 1)


def _adverbs(adjective: str) -> tuple[str, ...]:
    """Ways to spell the adverb of an adjective."""
    if adjective.endswith("y"):
        return (adjective[:-1] + "ily",)
    if adjective.endswith("le"):
        return (adjective[:-1] + "y",)
    return (adjective + "ally",) if adjective.endswith("ic") else (adjective + "ly",)


def _defined(synset: Synset, word: Word) -> bool:
    """Whether `word`, or a word that begins as it does ("beauty", "beautiful"), is in the definition of a synset."""
    definition = re.findall("[a-z]+", synset.gloss.partition('"')[0])
    if WEAKENING.intersection(definition):
        return False
    start = word.lemma[:5]
    return any(used == word.lemma or (min(len(used), len(start)) > 3 and used[:5] == start) for used in definition)


def _same_root(one: str, other: str) -> bool:
    """Whether two words begin alike for most of the shorter one ("concept", "conception")."""
    alike = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))))
    return alike >= max(3, 0.6 * min(len(one), len(other)))
