"""Rules on neighbouring words: the likely reading of a word, and whether another word fits in its place."""

import re

from sparseq.augment.lexicon import LIKELY_READING, Lexicon
from sparseq.augment.morphology import Reading
from sparseq.augment.tokens import Token
from sparseq.augment.wndb import Pos
from sparseq.augment.words import (
    AUXILIARIES,
    DENIALS,
    GOVERNED,
    INTENSIFIERS,
    MODALS,
    NOUN_FOLLOWERS,
    NOUN_MARKERS,
    OBJECT_STARTS,
    SUBJECTS,
)

_VOWEL_SOUND = re.compile(r"(?!uni|use|usu|uti|eu|one|once)(?:[aeiou]|hour|hono|heir|honest)")
# Shorter adjectives are not compared with "more" and "most": "harder", not "more hard".
_SHORTEST_AFTER_MORE = 7
# Between these are predicates and members of lists; "" is punctuation, or an end of the text.
_LIST_STARTS = frozenset(["", "and", "but", "or", "is", "are", "was", "were", "be", "'s"])
_LIST_ENDS = frozenset(["", "and", "but", "or"])


class Grammar:
    """Readings of words in context, by rules on the two neighbours.

    Args:
        lexicon: the readings that words have.
        pos_aware: False uses the most frequent reading whatever the neighbours.
    """

    def __init__(self, lexicon: Lexicon, pos_aware: bool = True) -> None:
        self._lexicon = lexicon
        self._pos_aware = pos_aware
        self._readings: dict[tuple[str, str, str], Reading | None] = {}

    def reading(self, token: Token) -> Reading | None:
        """The likely reading of a word that may be replaced; None if no reading is likely or the word must stay."""
        key = token.word, token.before, token.after
        if key not in self._readings:
            self._readings[key] = self._find_reading(*key)
        return self._readings[key]

    def _find_reading(self, word: str, before: str, after: str) -> Reading | None:
        weighed = list(self._lexicon.weighed(word))
        if not self._pos_aware:
            return max(weighed, key=lambda pair: pair[1])[0] if weighed else None
        if self._is_participle_as_adjective(word, before, after):
            reading = Reading("adj", word, "base")
            return None if self._bound(reading, before, after) else reading
        ruled_out = self._ruled_out(before, after)
        weighed = [pair for pair in weighed if pair[0].pos not in ruled_out]
        if before in AUXILIARIES:
            weighed = [pair for pair in weighed if pair[0].form != "third"]
        if not weighed:
            return None
        reading, uses = max(weighed, key=lambda pair: pair[1])
        if uses < LIKELY_READING * sum(weight for _, weight in weighed):
            return None
        if reading.form in ("past", "gerund") and (len(weighed) > 1 or before not in SUBJECTS | AUXILIARIES):
            return None  # most likely used as an adjective or a noun
        return None if self._bound(reading, before, after) else reading

    def _is_participle_as_adjective(self, word: str, before: str, after: str) -> bool:
        """Whether a participle that can be an adjective is one here ("an engaging film", "it is touching .")."""
        poses = {reading.pos for reading, _ in self._lexicon.weighed(word)}
        if not word.endswith(("ing", "ed")) or not {"verb", "adj"} <= poses:
            return False
        attribute = before in NOUN_MARKERS and self._lexicon.is_mostly("noun", after)
        if before in INTENSIFIERS or attribute or "noun" in poses:
            return before in INTENSIFIERS or attribute
        return after in _LIST_ENDS and (before in NOUN_MARKERS or before in _LIST_STARTS)

    def _ruled_out(self, before: str, after: str) -> tuple[Pos, ...]:
        """Parts of speech that a word between these two cannot have."""
        if before in NOUN_MARKERS:
            if after in NOUN_FOLLOWERS:
                return ("verb", "adj", "adv")
            return ("verb",)
        if before in SUBJECTS or before in MODALS or (before == "to" and after in OBJECT_STARTS):
            return ("noun", "adj")
        if before in INTENSIFIERS:
            return ("noun", "verb")
        return ("verb",) if self._lexicon.is_mostly("adj", before) else ()

    def _bound(self, reading: Reading, before: str, after: str) -> bool:
        """Whether the neighbours require this particular word, and not any with the same meaning."""
        if reading.pos == "adv":
            return "as" in (before, after) or after in DENIALS  # "as soon as", "simply no"
        if reading.pos in ("verb", "adj") and (after in GOVERNED or after.endswith("ing")):
            return True
        if reading.pos == "noun" and (after == "to" or self._lexicon.is_mostly("noun", after)):
            return True
        return reading.pos != "verb" and any(self._lexicon.is_name(word) for word in (before, after) if word)


def agrees(before: str, form: str) -> bool:
    """Whether the preceding word, if it is an article or makes a comparative, can precede `form`."""
    if before in ("a", "an"):
        return (_VOWEL_SOUND.match(form) is not None) == (before == "an")
    return before not in ("more", "most") or len(form) >= _SHORTEST_AFTER_MORE
