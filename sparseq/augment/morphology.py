"""Inflection: the base form of a word, and the same inflected form of another base form.

The rules of detachment are those of WordNet's `morphy` (manual page morphy(7WN)), with its exception lists for
irregular forms. A regular form is accepted only if inflecting the base form gives it back, so that a replacement is
inflected by the same rules that the original was analysed with.
"""

import re
from typing import Literal, NamedTuple

from sparseq.augment.irregular import (
    BASE_PARTICIPLES,
    DOUBLING,
    HARD_CH,
    KEEPING_E,
    MANS,
    NO_PLURAL,
    REGULAR_PASTS,
    REGULAR_PLURALS,
    SOFT_ARCH,
    UNCHANGED_VERBS,
)
from sparseq.augment.wndb import Pos
from sparseq.augment.wordnet import WordNet

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
_DOUBLES = re.compile(r"^y?[^aeiouy]*[aeiou][bdgklmnprt]$")  # one syllable, one short vowel, one consonant: stop, plan
_PLAIN = re.compile(r"[a-z]+")
# Verbs in consonant + o whose third person always ends in -oes; others vary ("solos", "mottoes").
_OES = ("go", "do", "echo", "veto", "embargo")
_PREFIXES = (
    "back",
    "bob",
    "boot",
    "fore",
    "in",
    "joy",
    "mis",
    "out",
    "over",
    "re",
    "type",
    "un",
    "under",
    "up",
    "with",
)


class Reading(NamedTuple):
    """One analysis of a word: part of speech, base form, and which form of it the word is."""

    pos: Pos
    lemma: str
    form: Form


def readings(wordnet: WordNet, word: str) -> tuple[Reading, ...]:
    """All readings of a lower-case `word`. Comparatives and superlatives have none as such.

    A verb whose past or participle equals its base form ("hit", "overcome") is not read as that base form, because its
    tense is unknown.
    """
    found = [Reading(pos, word, "base") for pos in ("noun", "verb", "adj", "adv") if wordnet.offsets(word, pos)]
    for pos, form, suffix, endings in _SUFFIXES:
        if word.endswith(suffix) and len(word) > len(suffix):
            stem = word[: -len(suffix)]
            bases = [stem + ending for ending in endings]
            if len(stem) > 2 and (stem[-1] == stem[-2] or stem.endswith("ck")):
                bases.append(stem[:-1])
            found += [Reading(pos, base, form) for base in bases if _is_regular(wordnet, base, form, word)]
    for base in wordnet.bases(word, "noun"):
        found.append(Reading("noun", base, "plural"))
    for base in wordnet.bases(word, "verb"):
        found.append(Reading("verb", base, _irregular_form(word)))
    known = dict.fromkeys(reading for reading in found if wordnet.offsets(reading.lemma, reading.pos))
    unclear = word in UNCHANGED_VERBS or word in BASE_PARTICIPLES
    return tuple(r for r in known if not (r.pos == "verb" and r.form == "base" and unclear))


def inflect(wordnet: WordNet, lemma: str, pos: Pos, form: Form) -> str | None:
    """The `form` of a lower-case `lemma`, or None if it is not certain.

    The past must equal the participle, so verbs for which they differ have none here ("go": "went" and "gone"; "show":
    "showed" and "shown").
    """
    if form == "base":
        return lemma
    listed = tuple(entry for entry in wordnet.irregular(lemma, pos) if _PLAIN.fullmatch(entry))
    if form == "plural":
        if _of_irregular_noun(wordnet, lemma):
            return None
        return _one_or_regular(() if lemma in REGULAR_PLURALS else listed, lemma, form)
    if lemma in ("be", "have"):
        return None
    listed = tuple(e for e in listed if _irregular_form(e) == form and not (form == "gerund" and lemma in KEEPING_E))
    if form == "third":
        return _one_or_regular(listed if lemma.endswith(("s", "z")) else (), lemma, form)
    if form == "past":
        if lemma in UNCHANGED_VERBS or lemma in BASE_PARTICIPLES:
            return None
        listed = () if lemma in REGULAR_PASTS else listed
        if len(listed) == 1 and listed[0].endswith("n") and not listed[0].endswith(("won", "spun")):
            return None  # the exception lists have only the participle ("shown"), because the past is regular
    return _one_or_regular(listed, lemma, form) if listed or not _of_irregular(wordnet, lemma, form) else None


def _is_regular(wordnet: WordNet, lemma: str, form: Form, word: str) -> bool:
    """Whether `word` is the regular `form` of `lemma` and no irregular form excludes it ("seed" of "see")."""
    if _regular(lemma, form) != word:
        return False
    if form != "past":
        return True
    listed = filter(_PLAIN.fullmatch, wordnet.irregular(lemma, "verb"))
    irregular = [entry for entry in listed if _irregular_form(entry) == "past"]
    return lemma not in UNCHANGED_VERBS and (len(irregular) < 2 or word in irregular)


def _one_or_regular(listed: tuple[str, ...], lemma: str, form: Form) -> str | None:
    if listed:
        return listed[0] if len(listed) == 1 else None
    return _regular(lemma, form)


def _of_irregular(wordnet: WordNet, verb: str, form: Form) -> bool:
    """Whether a verb without a listed `form` is a prefix plus a verb with one ("resell", "bootstrap")."""
    for rest in (verb[len(prefix) :] for prefix in _PREFIXES if verb.startswith(prefix)):
        if not wordnet.offsets(rest, "verb") or rest in REGULAR_PASTS:
            continue
        listed = any(_irregular_form(entry) == form for entry in wordnet.irregular(rest, "verb"))
        if listed or _DOUBLES.match(rest) or (form == "past" and rest in UNCHANGED_VERBS):
            return True
    return False


def _of_irregular_noun(wordnet: WordNet, noun: str) -> bool:
    """Whether a noun without a listed plural ends in one with a listed plural ("clubfoot")."""
    if wordnet.irregular(noun, "noun"):
        return False
    return any(wordnet.irregular(noun[start:], "noun") for start in range(1, len(noun) - 3))


def _irregular_form(word: str) -> Form:
    if word.endswith("ing"):
        return "gerund"
    return "third" if word.endswith("s") and not word.endswith("ss") else "past"


def _regular(lemma: str, form: Form) -> str | None:
    """The form by the rules of spelling, or None if they are ambiguous."""
    after_consonant = len(lemma) > 1 and lemma[-2] not in "aeiou"
    if form in ("plural", "third"):
        return _with_s(lemma, form, after_consonant)
    doubled = lemma
    if _DOUBLES.match(lemma) or lemma in DOUBLING:
        doubled = lemma + lemma[-1]
    elif lemma.endswith("c") and not after_consonant:
        doubled = lemma + "k"
    if form == "past":
        if lemma.endswith("e"):
            return lemma + "d"
        return lemma[:-1] + "ied" if lemma.endswith("y") and after_consonant else doubled + "ed"
    if lemma.endswith("ie"):
        return lemma[:-2] + "ying"
    if lemma.endswith("e") and not lemma.endswith(("ee", "oe", "ye")) and lemma not in KEEPING_E:
        return lemma[:-1] + "ing"
    return doubled + "ing"


def _with_s(lemma: str, form: Form, after_consonant: bool) -> str | None:
    """The plural of a noun or the third person of a verb."""
    if form == "plural":
        plural_already = lemma.endswith("s") and not lemma.endswith(("ss", "us", "as", "is", "lens"))
        if plural_already or lemma.endswith(("sis", "itis", *NO_PLURAL)):  # "series", "politics", "catharsis"
            return None
        if lemma.endswith("man") and len(lemma) > 4 and not lemma.endswith(MANS):
            return lemma[:-3] + "men"
    if lemma.endswith("y") and (after_consonant or lemma.endswith("quy")):
        return lemma[:-1] + "ies"
    if form == "third" and lemma.endswith("o") and after_consonant:
        return lemma + "es" if lemma.endswith(_OES) else None
    hissing = lemma.endswith(("s", "x", "z", "sh")) or (lemma.endswith("ch") and not _hard_ch(lemma))
    return lemma + ("es" if hissing else "s")


def _hard_ch(lemma: str) -> bool:
    return lemma in HARD_CH or (lemma.endswith("arch") and lemma not in SOFT_ARCH)
