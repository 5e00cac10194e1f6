"""Synonym replacement: copies of a text in which some words are replaced by WordNet synonyms."""

import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sparseq.augment.lexicon import LIKELY_READING, PLAIN, Lexicon, Synonym
from sparseq.augment.morphology import Reading
from sparseq.augment.tokens import Token, cased_like, is_name, split
from sparseq.augment.usage import WordUsage
from sparseq.augment.wndb import Pos
from sparseq.augment.wordnet import WordNet
from sparseq.augment.words import (
    AUXILIARIES,
    DENIALS,
    GOVERNED,
    INTENSIFIERS,
    MODALS,
    NOUN_FOLLOWERS,
    NOUN_MARKERS,
    OBJECT_STARTS,
    STOP_WORDS,
    SUBJECTS,
)
from sparseq.errors import InputError

_VOWEL_SOUND = re.compile(r"(?!uni|use|usu|uti|eu|one|once)(?:[aeiou]|hour|hono|heir|honest)")
# Shorter adjectives are not compared with "more" and "most": "harder", not "more hard".
_SHORTEST_AFTER_MORE = 7


@dataclass(frozen=True)
class Site:
    """A word of a text that may be replaced: its place, its base form, and what may stand for it."""

    token: Token
    lemma: str
    options: tuple[Synonym, ...]


@dataclass(frozen=True)
class Plan:
    """What to replace in one copy of a text: the first `number` of the sites, each by the first of its options."""

    number: int
    sites: tuple[Site, ...]


class SynonymAugmenter:
    """Makes copies of texts with some words replaced by synonyms; label-preserving by intent, cheap, and seeded.

    Which words may be replaced. A word is a candidate when it is a plain word that is neither protected nor a
    function word, negation or light verb (`STOP_WORDS`), looks like no name (not capitalised within a sentence, and
    no noun or adjective beside a name or a word that WordNet lacks), and is in no collocation that WordNet lists
    ("high school"). Its part of speech is taken without a tagger: of the readings WordNet has (inflected forms
    included) those that the neighbouring words rule out are dropped (no verb after "a", no noun after "they"), and one
    must be left with at least 80 % of the uses that WordNet's annotators tagged. Its meaning is its most frequent one,
    which must have at least half of the tagged uses (`DATED_SENSES` names the common exceptions). Words that govern a
    preposition or clause ("rely on") stay.

    What replaces them. Words of the same synset; for a satellite adjective those of its head too ("beautiful" for
    "gorgeous"); for an adverb those made of its adjective's synonyms. Half of the uses of the synonym must have that
    meaning. It must be new to the text, agree with a preceding "a" or "an", be no name, no multiword and no mere
    variant ("concept", "conception"), and it takes the same form (plural, past, ...; none where that form is not
    certain). A verb must take the same sentence frames. It must be common: tagged by WordNet's annotators.

    What texts add. `augment_dataset` counts the words of its texts (`WordUsage`). Where they have 20,000 or more, a
    synonym must be common in them instead; less frequent meanings of adjectives and adverbs, down to 30 % of their
    uses, count if the two words stand in the same places of the texts; and what is a phrase or a title there stays
    ("big screen").

    Case, spacing and punctuation stay as they are.

    Args:
        wordnet: an open `WordNet`.
        rate: share of a text's words to replace, above 0 and at most 1. At least one is replaced where any can be,
            and never more than can be; `augment_dataset` tells which share was reached.
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
        self._lexicon = Lexicon(wordnet, self.stop_words)
        self._replaceable: dict[str, bool] = {}

    def augment(self, text: str, index: int) -> list[str]:
        """Copies of `text`: at most `copies`, all different from it and from one another; none if no word qualifies.

        The result depends on the arguments, the settings and (seed, index) alone: not on the order of calls, the
        process or PYTHONHASHSEED.
        """
        variants = [self.variant(text, index, copy) for copy in range(self.copies)]
        return [variant for variant in dict.fromkeys(variants) if variant != text]

    def variant(self, text: str, index: int, copy: int = 0, part: str = "") -> str:
        """Copy number `copy` of `text`, or `text` itself if no word qualifies; `part` tells columns of a row apart."""
        tokens = split(text)
        plan = self.plan(self.sites(text, tokens), len(tokens), index, copy, part)
        return replaced(text, [(site, site.options[0]) for site in plan.sites[: plan.number]])

    def plan(self, sites: Sequence[Site], words: int, index: int, copy: int = 0, part: str = "") -> Plan:
        """Draws how many of a text's `words` to replace, in which order to try its sites, and each one's options."""
        if not sites:
            return Plan(0, ())
        # Seeded by a string, which Python's random module hashes with SHA-512.
        rng = random.Random(f"{self.seed}/{index}/{copy}/{part}")
        wanted = self.rate * words
        number = max(1, int(wanted) + (rng.random() < wanted % 1))
        drawn = rng.sample(sites, len(sites))
        shuffled = (Site(s.token, s.lemma, tuple(rng.sample(s.options, len(s.options)))) for s in drawn)
        return Plan(number, tuple(shuffled))

    def sites(self, text: str, tokens: list[Token], usage: WordUsage | None = None) -> list[Site]:
        """The words of `text`, split into `tokens`, that may be replaced, in order.

        Args:
            text: the text.
            tokens: its words, as `split` gives them.
            usage: of the texts that this one is from; where it is enough, a synonym must be common there.
        """
        found = []
        words = [token.word for token in tokens]
        for i, token in enumerate(tokens):
            if not self._may_be_replaced(token.word) or is_name(text, tokens, i):
                continue
            reading = self._likely_reading(token)
            if reading is None or reading.lemma in self.stop_words or reading.lemma in self.protected:
                continue
            options = tuple(s for s in self._fitting(token, reading, usage) if s.form not in words)
            if not options or self._lexicon.collocated(words, i):
                continue
            if usage is None or not usage.enough or not usage.phrase(token):
                found.append(Site(token, reading.lemma, options))
        return found

    def _may_be_replaced(self, word: str) -> bool:
        if word not in self._replaceable:
            self._replaceable[word] = (
                PLAIN.fullmatch(word) is not None
                and word not in self.stop_words
                and word not in self.protected
                and self._lexicon.has_synonyms(word)
            )
        return self._replaceable[word]

    def _fitting(self, token: Token, reading: Reading, usage: WordUsage | None) -> Iterable[Synonym]:
        """The synonyms that are common and fit the word before."""
        for synonym in self._lexicon.synonyms(reading):
            if usage is not None and usage.enough:
                known = usage.common(synonym.form, token.word)
                known = known and (synonym.likely or usage.alike(synonym.form, token.word))
            else:
                known = synonym.tagged and synonym.likely
            if known and _agrees(token.before, synonym.form):
                yield synonym

    def _likely_reading(self, token: Token) -> Reading | None:
        word, before, after = token.word, token.before, token.after
        weighed = list(self._lexicon.weighed(word))
        if not self.pos_aware:
            return max(weighed, key=lambda pair: pair[1])[0] if weighed else None
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
            return None  # most likely stands as an adjective or a noun
        return None if self._bound(reading, before, after) else reading

    def _ruled_out(self, before: str, after: str) -> tuple[Pos, ...]:
        """Parts of speech that a word between these two is not."""
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
        """Whether the words beside bind the word itself, and not any that means the same."""
        if reading.pos == "adv":
            return "as" in (before, after) or after in DENIALS  # "as soon as", "simply no"
        if reading.pos in ("verb", "adj") and (after in GOVERNED or after.endswith("ing")):
            return True
        if reading.pos == "noun" and (after == "to" or self._lexicon.is_mostly("noun", after)):
            return True
        return reading.pos != "verb" and any(self._lexicon.is_name(word) for word in (before, after) if word)


def _agrees(before: str, form: str) -> bool:
    """Whether the word before, if it is an article or makes a comparative, can stand before `form`."""
    if before in ("a", "an"):
        return (_VOWEL_SOUND.match(form) is not None) == (before == "an")
    return before not in ("more", "most") or len(form) >= _SHORTEST_AFTER_MORE


def replaced(text: str, choices: Iterable[tuple[Site, Synonym]]) -> str:
    """`text` with each site's word replaced, in its capitals."""
    pieces: list[str] = []
    at = 0
    for site, synonym in sorted(choices, key=lambda choice: choice[0].token.start):
        pieces += [text[at : site.token.start], cased_like(site.token.text, synonym.form)]
        at = site.token.end
    return "".join([*pieces, text[at:]])
