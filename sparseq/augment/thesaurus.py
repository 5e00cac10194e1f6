"""Synonyms of words by WordNet, each with the evidence that the meanings agree."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import takewhile
from typing import NamedTuple

from sparseq.augment.lexicon import LIKELY_READING, PLAIN, Lexicon
from sparseq.augment.morphology import Reading, inflect
from sparseq.augment.senses import sense_shares
from sparseq.augment.wndb import Pos, Synset, Word
from sparseq.augment.words import AVOIDED, DATED_SENSES, ENUMERATING, WEAKENING

# A synonym is likely if half the uses of the word have a meaning that the synonym has, and vice versa.
_LIKELY = 0.5
# Meanings of a word with a smaller share of its uses, and synonyms with less evidence, are ignored. These and the
# three weights below were chosen on the training sentences of SST-2, by reading the replacements (`usage`).
_LEAST_SHARE = 0.05
_LEAST_EVIDENCE = 0.1
# The weight of a shared meaning if the words are in one synset; if their synsets are similar; and if a satellite
# replaces its head, because it is more specific ("dramatic", "hammy").
_SAME, _SIMILAR, _SATELLITE = 1.0, 0.8, 0.6

# Decimal digits that weights are rounded to before they are compared or used for drawing. The last digits of numpy's
# sums, logarithms and powers differ between processors, because it uses other instructions on each.
DIGITS = 6


class Synonym(NamedTuple):
    """A possible replacement of a word.

    Attributes:
        form: inflected like the word that it replaces.
        lemma: its base form.
        evidence: from 0 to 1, the geometric mean of the share of the word's uses with a meaning that the synonym has
            too, and the share of the synonym's uses with those meanings. Similar meanings count less than the same
            ones. Rounded to six decimal digits.
        likely: whether the two share most of their uses. If not, texts should show that they are used alike.
        tagged: whether WordNet's annotators saw both; if not, one of them may be a rare word.
    """

    form: str
    lemma: str
    evidence: float
    likely: bool
    tagged: bool


@dataclass
class _Found:
    """What a word and a synonym share: by offset of the synset, the weight for the word and for the synonym."""

    own: dict[int, float] = field(default_factory=dict)
    its: dict[int, float] = field(default_factory=dict)

    def add(self, own: int, its: int, own_share: float, its_share: float, weight: float) -> None:
        self.own[own] = max(self.own.get(own, 0.0), weight * own_share)
        self.its[its] = max(self.its.get(its, 0.0), its_share)

    def evidence(self) -> float:
        own, its = self._shares()
        return round(math.sqrt(min(1.0, own) * min(1.0, its)), DIGITS)

    def likely(self) -> bool:
        return min(self._shares()) >= _LIKELY

    def _shares(self) -> tuple[float, float]:
        return round(sum(self.own.values()), DIGITS), round(sum(self.its.values()), DIGITS)


class _Usable(NamedTuple):
    """A word that may replace others: the share of its uses with this meaning, and the ending of its degree."""

    word: Word
    share: float
    degree: str


class Thesaurus:
    """Synonyms of readings of words, each looked up once.

    Synonyms are words of the same synsets; for an adjective also those of similar synsets (WordNet's clusters of a head
    and its satellites); for an adverb those derived from its adjective's synonyms.

    Args:
        lexicon: determines what other readings a synonym has.
    """

    def __init__(self, lexicon: Lexicon) -> None:
        self._lexicon = lexicon
        self._wordnet = lexicon.wordnet
        self._synonyms: dict[Reading, tuple[Synonym, ...]] = {}
        self._usables: dict[tuple[Pos, int], tuple[_Usable, ...]] = {}

    def synonyms(self, reading: Reading) -> tuple[Synonym, ...]:
        """Synonyms in the form of the reading, each once, those with most evidence first."""
        if reading not in self._synonyms:
            found = sorted(self._find(reading), key=lambda synonym: (-synonym.evidence, synonym.form))
            unique: dict[str, Synonym] = {}
            for synonym in found:
                unique.setdefault(synonym.form, synonym)
            self._synonyms[reading] = tuple(unique.values())
        return self._synonyms[reading]

    def _find(self, reading: Reading) -> Iterator[Synonym]:
        lemma, pos = reading.lemma, reading.pos
        if lemma in DATED_SENSES:
            return
        every, sure = self._gather(lemma, pos)
        for synonym, found in every.items():
            evidence = found.evidence()
            form = inflect(self._wordnet, synonym, pos, reading.form) if evidence >= _LEAST_EVIDENCE else None
            if form is not None:
                likely = synonym in sure and sure[synonym].likely()
                tagged = self._tagged(synonym, pos) and (pos in ("adj", "adv") or self._tagged(lemma, pos))
                yield Synonym(form, synonym, evidence, likely, tagged)
        if pos == "adv":
            yield from self._from_adjective(lemma)

    def _gather(self, lemma: str, pos: Pos) -> tuple[dict[str, _Found], dict[str, _Found]]:
        """All synonyms with what they share with `lemma`, and what they share by the same synsets or definitions."""
        every: dict[str, _Found] = {}
        sure: dict[str, _Found] = {}
        for offset, share in sense_shares(self._wordnet, lemma, pos).items():
            synset = self._wordnet.synset(pos, offset)
            own = next((word for word in synset.words if word.lemma.lower() == lemma), None)
            if share < _LEAST_SHARE or own is None or own.lemma != lemma or synset.instance:
                continue
            for target, usable, same in self._related(synset, pos, offset):
                word = usable.word
                if not self._fits(usable, own, pos):
                    continue
                weight = _SAME if same else _SIMILAR if synset.satellite else _SATELLITE
                every.setdefault(word.lemma, _Found()).add(offset, target, share, usable.share, weight)
                if same:
                    sure.setdefault(word.lemma, _Found()).add(offset, target, share, usable.share, weight)
        return every, sure

    def _related(self, synset: Synset, pos: Pos, offset: int) -> Iterator[tuple[int, _Usable, bool]]:
        """The offset of a synset, a word of it, and whether it means the same as the words of `synset`.

        A head means the same as a satellite that is defined by it: "gorgeous" is "dazzlingly beautiful".
        """
        for usable in self._usable(pos, offset):
            yield offset, usable, True
        for similar in synset.similar:
            head = synset if not synset.satellite else self._wordnet.synset(pos, similar)
            if ENUMERATING.intersection(word.lemma for word in head.words):
                continue  # these are the members of a series ("fourth", "ninth")
            for usable in self._usable(pos, similar):
                yield similar, usable, synset.satellite and _defined(synset, usable.word)
            for sibling in self._wordnet.synset(pos, similar).similar if synset.satellite else ():
                if sibling != offset:
                    for usable in self._usable(pos, sibling):
                        yield sibling, usable, False

    def _from_adjective(self, adverb: str) -> Iterator[Synonym]:
        """Adverbs derived from the synonyms of the adjective that an adverb comes from."""
        adjective = self._wordnet.adjective(adverb)
        if adjective is None or next(iter(sense_shares(self._wordnet, adverb, "adv").values())) < _LIKELY:
            return
        for synonym in self.synonyms(Reading("adj", adjective, "base")):
            for made in _adverbs(synonym.lemma):
                of_it = len(self._wordnet.offsets(made, "adv")) == 1 and self._wordnet.adjective(made) == synonym.lemma
                if of_it and made != adverb and made not in AVOIDED | DATED_SENSES:
                    yield Synonym(made, made, synonym.evidence, synonym.likely, synonym.tagged)

    def _fits(self, usable: _Usable, own: Word, pos: Pos) -> bool:
        """Whether a word can be in the same places as `own`."""
        word, lemma = usable.word, usable.word.lemma
        if lemma == own.lemma or word.marker not in ("", own.marker) or not word.frames >= own.frames:
            return False
        if pos == "noun" and lemma.endswith(("ing", "ness")) and not own.lemma.endswith(("ing", "ness")):
            return False
        return not _same_root(lemma, own.lemma) and (pos != "adj" or usable.degree == self._degree(own.lemma))

    def _usable(self, pos: Pos, offset: int) -> tuple[_Usable, ...]:
        """The words of a synset that may replace others."""
        if (pos, offset) not in self._usables:
            words = (word for word in self._wordnet.synset(pos, offset).words if self._is_usable(word.lemma, pos))
            self._usables[pos, offset] = tuple(
                _Usable(
                    word,
                    sense_shares(self._wordnet, word.lemma, pos)[offset],
                    self._degree(word.lemma) if pos == "adj" else "",
                )
                for word in words
            )
        return self._usables[pos, offset]

    def _is_usable(self, lemma: str, pos: Pos) -> bool:
        """Whether a word is plain, and mostly has this part of speech."""
        if PLAIN.fullmatch(lemma) is None or lemma in self._lexicon.stop_words or lemma in AVOIDED:
            return False
        if pos == "noun" and lemma.endswith("s") and inflect(self._wordnet, lemma, pos, "plural") is None:
            return False  # takes a plural verb ("surroundings")
        if pos == "adj" and lemma.endswith(("ing", "ed")):
            return True  # also a form of a verb, but clear in the place of an adjective
        uses = dict(self._lexicon.weighed(lemma))
        same = sum(weight for r, weight in uses.items() if r.pos == pos and r.form == "base")
        return 0 < same >= LIKELY_READING * sum(uses.values())

    def _tagged(self, lemma: str, pos: Pos) -> bool:
        return any(self._wordnet.counts(lemma, pos))

    def _degree(self, adjective: str) -> str:
        """The ending of a comparative or superlative that is a lemma of its own ("bigger", "greatest"), or ""."""
        for ending in ("er", "est") if adjective.endswith(("er", "est")) else ():
            stem = adjective.removesuffix(ending)
            bases = (stem, stem + "e", re.sub("i$", "y", stem), *self._wordnet.bases(adjective, "adj"))
            if stem != adjective and any(self._wordnet.offsets(base, "adj") for base in bases if base != adjective):
                return ending
        return ""


def _adverbs(adjective: str) -> tuple[str, ...]:
    """Ways to spell the adverb of an adjective."""
    if adjective.endswith("y"):
        return (adjective[:-1] + "ily",)
    if adjective.endswith("le"):
        return (adjective[:-1] + "y",)
    return (adjective + "ally",) if adjective.endswith("ic") else (adjective + "ly",)


def _defined(synset: Synset, word: Word) -> bool:
    """Whether `word`, or a word with the same beginning ("beauty", "beautiful"), is in the definition of a synset."""
    definition = re.findall("[a-z]+", synset.gloss.partition('"')[0])
    if WEAKENING.intersection(definition):
        return False
    start = word.lemma[:5]
    return any(used == word.lemma or (min(len(used), len(start)) > 3 and used[:5] == start) for used in definition)


def _same_root(one: str, other: str) -> bool:
    """Whether two words begin with the same letters for most of the shorter one ("concept", "conception")."""
    if one[:3] != other[:3]:
        return False
    alike = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))))
    return alike >= max(3, 0.6 * min(len(one), len(other)))
