"""Synonym replacement: copies of a text in which some words are replaced by WordNet synonyms."""

import random
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import takewhile

from sparseq.augment.morphology import Reading, inflect, readings
from sparseq.augment.wordnet import Pos, Word, WordNet
from sparseq.augment.words import (
    AUXILIARIES,
    AVOIDED,
    DATED_SENSES,
    GOVERNED,
    NOUN_MARKERS,
    STOP_WORDS,
    SUBJECTS,
)
from sparseq.errors import InputError

# A word with its apostrophes and hyphens is one token ("don't", "n't", "half-baked"), so no part of it is replaced.
_TOKEN = re.compile(r"'?[^\W_]+(?:['\u2019`-]+[^\W_]+)*")
_PLAIN = re.compile(r"[a-z]{3,}")
_SENTENCE_START = re.compile(r"(?:^|[.!?:][\"'\u2019\u201d)]*\s+)[\"'`\u2018\u201c]*$")
_VOWEL_SOUND = re.compile(r"(?!uni|use|usu|uti|eu|one|once)(?:[aeiou]|hour|hono|heir|honest)")
_LONGEST_COLLOCATION = 3

# Part of speech and meaning are trusted when they have this share of a word's tagged uses.
_LIKELY_READING = 0.8
_LIKELY_SENSE = 0.5
# Tagged uses are counted by lemma; of them an inflected form has only a part.
_INFLECTED_SHARE = 0.3


@dataclass(frozen=True)
class _Token:
    start: int
    end: int
    text: str
    word: str  # lower case


class SynonymAugmenter:
    """Makes copies of texts with some words replaced by synonyms; label-preserving by intent, cheap, and seeded.

    Which words may be replaced. A word is a candidate when it is a plain word that is neither protected nor a
    function word, negation or light verb (`STOP_WORDS`), looks like no name (not capitalised within a sentence), and
    is in no collocation that WordNet lists ("high school"). Its part of speech is taken without a tagger: of the
    readings WordNet has (inflected forms included) those that the neighbouring words rule out are dropped (no verb
    after "a", no noun after "they"), and one must be left with at least 80 % of the uses that WordNet's annotators
    tagged. Its meaning is its most frequent one, which must have at least half of the tagged uses (`DATED_SENSES`
    names the common exceptions); half of the uses of the synonym must have that meaning too. The synonym must be new
    to the text, agree with a preceding "a" or "an", be no name, no multiword and no mere variant ("concept",
    "conception"), and it takes the same form (plural, past, ...; none where that form is not certain). A verb must
    take the same sentence frames. Words that govern a preposition or clause ("rely on") stay.

    Case, spacing and punctuation stay as they are.

    Args:
        wordnet: an open `WordNet`.
        rate: share of a text's words to replace, above 0 and at most 1. At least one is replaced where any can be,
            and never more than can be: these rules find synonyms for one word in 25 of movie reviews.
        copies: how many different copies of a text to make, at least 1.
        pos_aware: False skips the rules on part of speech: the most frequent reading is taken whatever stands around.
        protected: more words never to replace (surface forms or base forms, case does not matter).
        seed: with the index of a text it settles everything drawn for that text.
        stop_words: function words; give an empty set to allow them.

    Raises:
        InputError: rate or copies out of range, or `protected` is one string.
    """

    def __init__(
        self,
        wordnet: WordNet,
        *,
        rate: float = 0.15,
        copies: int = 1,
        pos_aware: bool = True,
        protected: Iterable[str] = frozenset(),
        seed: int = 0,
        stop_words: Iterable[str] = STOP_WORDS,
    ) -> None:
        if not 0 < rate <= 1:
            raise InputError(f"the augmentation rate must be above 0 and at most 1, not {rate}")
        if copies < 1:
            raise InputError(f"the number of augmented copies must be at least 1, not {copies}")
        if isinstance(protected, str):
            raise InputError("protected must be a collection of words, not one string")
        self.wordnet = wordnet
        self.rate = rate
        self.copies = copies
        self.pos_aware = pos_aware
        self.protected = frozenset(word.lower() for word in protected)
        self.stop_words = frozenset(word.lower() for word in stop_words)
        self.seed = seed
        self._readings: dict[str, tuple[tuple[Reading, float], ...]] = {}
        self._replacements: dict[Reading, tuple[str, ...]] = {}

    def augment(self, text: str, index: int) -> list[str]:
        """Copies of `text`: at most `copies`, all different from it and from one another; none if no word qualifies.

        The result depends on the arguments, the settings and (seed, index) alone: not on the order of calls, the
        process or PYTHONHASHSEED.
        """
        variants = [self.variant(text, index, copy) for copy in range(self.copies)]
        return [variant for variant in dict.fromkeys(variants) if variant != text]

    def variant(self, text: str, index: int, copy: int = 0, part: str = "") -> str:
        """Copy number `copy` of `text`, or `text` itself if no word qualifies; `part` tells columns of a row apart."""
        tokens = [_Token(m.start(), m.end(), m[0], m[0].lower()) for m in _TOKEN.finditer(text)]
        options = {i: words for i in range(len(tokens)) if (words := self._options(text, tokens, i))}
        if not options:
            return text
        # Seeded by a string, which Python's random module hashes with SHA-512.
        rng = random.Random(f"{self.seed}/{index}/{copy}/{part}")
        wanted = self.rate * len(tokens)
        number = max(1, int(wanted) + (rng.random() < wanted % 1))
        pieces: list[str] = []
        at = 0
        for i in sorted(rng.sample(list(options), min(number, len(options)))):
            token = tokens[i]
            pieces += [text[at : token.start], _cased_like(token.text, rng.choice(options[i]))]
            at = token.end
        return "".join([*pieces, text[at:]])

    def _options(self, text: str, tokens: list[_Token], i: int) -> tuple[str, ...]:
        """Words that may stand for token `i`, inflected, in lower case."""
        token = tokens[i]
        if not self._replaceable(token) or _is_name(text, tokens, i):
            return ()
        before = tokens[i - 1].word if i and text[tokens[i - 1].end : token.start].isspace() else ""
        after = ""
        if i + 1 < len(tokens) and text[token.end : tokens[i + 1].start].isspace():
            after = tokens[i + 1].word
        reading = self._likely_reading(token.word, before, after)
        if reading is None or reading.lemma in self.stop_words or reading.lemma in self.protected:
            return ()
        present = {t.word for t in tokens}
        found = [word for word in self._synonyms(reading) if word not in present]
        if before in ("a", "an"):
            found = [word for word in found if (_VOWEL_SOUND.match(word) is not None) == (before == "an")]
        return tuple(found) if found and not self._in_collocation(tokens, i) else ()

    def _replaceable(self, token: _Token) -> bool:
        return (
            _PLAIN.fullmatch(token.word) is not None
            and token.word not in self.stop_words
            and token.word not in self.protected
        )

    def _in_collocation(self, tokens: list[_Token], i: int) -> bool:
        """Whether token `i` is part of a multiword entry of WordNet ("high school", "all in all")."""
        for first in range(max(0, i - _LONGEST_COLLOCATION + 1), i + 1):
            for last in range(max(i, first + 1), min(len(tokens), first + _LONGEST_COLLOCATION)):
                words = [t.word for t in tokens[first : last + 1]]
                ends = {words[-1], *(reading.lemma for reading, _ in self._weighed(words[-1]))}
                starts = {words[0], *(reading.lemma for reading, _ in self._weighed(words[0]))}
                if any(" ".join([s, *words[1:-1], e]) in self.wordnet for s in starts for e in ends):
                    return True
        return False

    def _weighed(self, word: str) -> tuple[tuple[Reading, float], ...]:
        """Readings of a word with their number of tagged uses (of untagged ones a tenth)."""
        if word not in self._readings:
            weighed = []
            for reading in readings(self.wordnet, word):
                uses = sum(self.wordnet.counts(reading.lemma, reading.pos)) or 0.1
                weighed.append((reading, uses * (1 if reading.form == "base" else _INFLECTED_SHARE)))
            self._readings[word] = tuple(weighed)
        return self._readings[word]

    def _likely_reading(self, word: str, before: str, after: str) -> Reading | None:
        weighed = list(self._weighed(word))
        if not self.pos_aware:
            return max(weighed, key=lambda pair: pair[1])[0] if weighed else None
        if before in NOUN_MARKERS:
            weighed = [pair for pair in weighed if pair[0].pos != "verb"]
        elif before in SUBJECTS:
            weighed = [pair for pair in weighed if pair[0].pos not in ("noun", "adj")]
        elif before in AUXILIARIES:
            weighed = [pair for pair in weighed if pair[0].form != "third"]
        if not weighed:
            return None
        reading, uses = max(weighed, key=lambda pair: pair[1])
        if uses < _LIKELY_READING * sum(weight for _, weight in weighed):
            return None
        if reading.form in ("past", "gerund") and (len(weighed) > 1 or before not in SUBJECTS | AUXILIARIES):
            return None  # most likely stands as an adjective or a noun
        if reading.pos in ("verb", "adj") and (after in GOVERNED or after.endswith("ing")):
            return None
        if reading.pos == "noun" and (after == "to" or self._is_noun(after)):
            return None
        return reading

    def _is_noun(self, word: str) -> bool:
        weighed = self._weighed(word) if _PLAIN.fullmatch(word) and word not in self.stop_words else ()
        return bool(weighed) and max(weighed, key=lambda pair: pair[1])[0].pos == "noun"

    def _synonyms(self, reading: Reading) -> tuple[str, ...]:
        """Synonyms of the first sense, in the reading's form."""
        if reading not in self._replacements:
            self._replacements[reading] = tuple(self._find_synonyms(reading))
        return self._replacements[reading]

    def _find_synonyms(self, reading: Reading) -> Iterable[str]:
        offsets = self.wordnet.offsets(reading.lemma, reading.pos)
        if reading.lemma in DATED_SENSES or self._sense_share(reading.lemma, reading.pos, 0) < _LIKELY_SENSE:
            return
        synset = self.wordnet.synset(reading.pos, offsets[0])
        own = next((word for word in synset.words if word.lemma.lower() == reading.lemma), None)
        if own is None or own.lemma != reading.lemma or synset.instance:
            return
        for word in synset.words:
            if word is own or not self._usable(word, own, reading, offsets[0]):
                continue
            form = inflect(self.wordnet, word.lemma, reading.pos, reading.form)
            if form is not None:
                yield form

    def _usable(self, word: Word, own: Word, reading: Reading, offset: int) -> bool:
        """Whether `word` means what `own` does in most of its uses, is common, and fits the same places."""
        if _PLAIN.fullmatch(word.lemma) is None or word.lemma in self.stop_words | AVOIDED:
            return False
        if word.marker not in ("", own.marker) or not word.frames >= own.frames or _same_root(word.lemma, own.lemma):
            return False
        if reading.pos == "noun" and word.lemma.endswith(("ing", "ness")) and not own.lemma.endswith(("ing", "ness")):
            return False
        sense = self.wordnet.offsets(word.lemma, reading.pos).index(offset)
        if self._sense_share(word.lemma, reading.pos, sense) < _LIKELY_SENSE:
            return False
        uses = {r: weight for r, weight in self._weighed(word.lemma)}
        same = sum(weight for r, weight in uses.items() if r.pos == reading.pos and r.form == "base")
        return same >= _LIKELY_READING * sum(uses.values())

    def _sense_share(self, lemma: str, pos: Pos, sense: int) -> float:
        """Share of the uses of `lemma` in sense number `sense` (from 0), each other sense counted once too often.

        The one more makes the share of a word with many senses and few tagged uses small, as it is mere chance then.
        It is 0 for a sense that was never tagged.
        """
        counts = self.wordnet.counts(lemma, pos)
        return counts[sense] / max(1, sum(counts) + len(counts) - 1)


def _is_name(text: str, tokens: list[_Token], i: int) -> bool:
    """Whether the capitals of token `i` are more than those of a sentence's first word or of a shouted text."""
    token = tokens[i]
    if token.text == token.word:
        return False
    if token.text.isupper() and text.isupper():
        return False
    after = tokens[i + 1] if i + 1 < len(tokens) and text[token.end : tokens[i + 1].start].isspace() else None
    titled = after is not None and after.text[0].isupper() and after.text != "I"  # "Big Fat Liar is ..."
    return titled or not token.text[1:].islower() or _SENTENCE_START.search(text[: token.start]) is None


def _same_root(one: str, other: str) -> bool:
    """Whether two words begin alike for most of the shorter one ("concept", "conception")."""
    alike = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))))
    return alike >= max(3, 0.6 * min(len(one), len(other)))


def _cased_like(original: str, word: str) -> str:
    if original.isupper():
        return word.upper()
    return word.capitalize() if original[0].isupper() else word
