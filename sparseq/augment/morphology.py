"""Inflected forms: which base form a word comes from, and the same form of another base form.

Rules of detachment as WordNet's own `morphy` (manual page morphy(7WN)), with its exception lists for the irregular
forms. A regular form is accepted only if inflecting the base form gives it back, so that a replacement is inflected
by the very rules the original was read by.
"""

import re
from dataclasses import dataclass
from typing import Literal

from sparseq.augment.wordnet import Pos, WordNet

Form = Literal["base", "plural", "third", "past", "gerund"]

_SUFFIXES: tuple[tuple[Pos, Form, str, tuple[str, ...]], ...] = (
    ("noun", "plural", "s", ("",)),
    ("noun", "plural", "es", ("",)),
    ("noun", "plural", "ies", ("y",)),
    ("noun", "plural", "men", ("man",)),
    ("verb", "third", "s", ("",)),
    ("verb", "third", "es", ("",)),
    ("verb", "third", "ies", ("y",)),
    ("verb", "past", "ed", ("", "e")),
    ("verb", "past", "ied", ("y",)),
    ("verb", "gerund", "ing", ("", "e")),
    ("verb", "gerund", "ying", ("ie",)),
)
# Not in the exception lists, as their past is their base form.
_UNCHANGED_LIST = """
beat bet bid broadcast burst bust cast cost cut fit forecast hit hurt knit let offset outbid preset put quit read recast
recut reread reset rid set shed shut slit spit split spread sublet sweat telecast thrust typecast undercut upset wed wet
"""
_UNCHANGED_VERBS = frozenset(_UNCHANGED_LIST.split())
_UNCHANGED_NOUNS = ("craft", "deer", "fish", "moose", "offspring", "salmon", "sheep", "shrimp", "trout", "bison")
_REGULAR_MAN = ("human", "german", "roman", "shaman", "talisman", "ottoman", "norman", "caiman")
_DOUBLES = re.compile(r"^[^aeiou]*[aeiou][bdgklmnprt]$")  # one syllable, one short vowel, one consonant: stop, plan


@dataclass(frozen=True)
class Reading:
    """One way to understand a word: part of speech, base form, and which form of it the word is."""

    pos: Pos
    lemma: str
    form: Form


def readings(wordnet: WordNet, word: str) -> tuple[Reading, ...]:
    """All readings of a lower-case `word`. Comparatives and superlatives have none as such.

    A verb whose past equals its base form ("hit") is not read as that base form, for the tense cannot be told.
    """
    found = [Reading(pos, word, "base") for pos in ("noun", "verb", "adj", "adv") if wordnet.offsets(word, pos)]
    for pos, form, suffix, endings in _SUFFIXES:
        if word.endswith(suffix) and len(word) > len(suffix) + 1:
            stem = word[: -len(suffix)]
            bases = [stem + ending for ending in endings]
            if len(stem) > 2 and stem[-1] == stem[-2]:
                bases.append(stem[:-1])
            found += [Reading(pos, base, form) for base in bases if _regular(base, form) == word]
    for base in wordnet.bases(word, "noun"):
        found.append(Reading("noun", base, "plural"))
    for base in wordnet.bases(word, "verb"):
        found.append(Reading("verb", base, _irregular_form(word)))
    known = dict.fromkeys(reading for reading in found if wordnet.offsets(reading.lemma, reading.pos))
    return tuple(r for r in known if not (r.pos == "verb" and r.form == "base" and word in _UNCHANGED_VERBS))


def inflect(wordnet: WordNet, lemma: str, pos: Pos, form: Form) -> str | None:
    """The `form` of a lower-case `lemma`, or None where it is not certain ("go": "gone" and "went")."""
    if form == "base":
        return lemma
    if (form == "past" and lemma in _UNCHANGED_VERBS) or (form == "plural" and lemma.endswith(_UNCHANGED_NOUNS)):
        return None
    irregular = wordnet.irregular(lemma, pos)
    if pos == "verb":
        irregular = tuple(entry for entry in irregular if _irregular_form(entry) == form)
    if irregular:
        return irregular[0] if len(irregular) == 1 else None
    return _regular(lemma, form)


def _irregular_form(word: str) -> Form:
    if word.endswith("ing"):
        return "gerund"
    return "third" if word.endswith("s") and not word.endswith("ss") else "past"


def _regular(lemma: str, form: Form) -> str:
    after_consonant = len(lemma) > 1 and lemma[-2] not in "aeiou"
    if form in ("plural", "third"):
        if lemma.endswith("y") and after_consonant:
            return lemma[:-1] + "ies"
        if form == "plural" and lemma.endswith("man") and not lemma.endswith(_REGULAR_MAN):
            return lemma[:-3] + "men"
        hissing = lemma.endswith(("s", "x", "z", "ch", "sh")) or (form == "third" and lemma.endswith("o"))
        return lemma + ("es" if hissing else "s")
    doubled = lemma + lemma[-1] if _DOUBLES.match(lemma) else lemma
    if form == "past":
        if lemma.endswith("e"):
            return lemma + "d"
        return lemma[:-1] + "ied" if lemma.endswith("y") and after_consonant else doubled + "ed"
    if lemma.endswith("ie"):
        return lemma[:-2] + "ying"
    if lemma.endswith("e") and not lemma.endswith(("ee", "oe", "ye")):
        return lemma[:-1] + "ing"
    return doubled + "ing"
