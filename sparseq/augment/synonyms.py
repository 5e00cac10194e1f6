"""Synonym replacement: copies of a text in which some words are replaced by WordNet synonyms."""

import math
import random
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sparseq.augment.grammar import Grammar, agrees
from sparseq.augment.lexicon import PLAIN, Lexicon
from sparseq.augment.morphology import Reading
from sparseq.augment.thesaurus import Thesaurus
from sparseq.augment.tokens import Token, Tokens, cased_like, has_name_capitals, split
from sparseq.augment.usage import Option, WordUsage
from sparseq.augment.wordnet import WordNet
from sparseq.augment.words import STOP_WORDS
from sparseq.errors import InputError


class Site(NamedTuple):
    """A word of a text that may be replaced: its position, its base form, and its possible replacements."""

    token: Token
    lemma: str
    options: tuple[Option, ...]


class Plan(NamedTuple):
    """The replacements of one copy of a text: the first `number` of the sites, each by the first of its options."""

    number: int
    sites: tuple[Site, ...]


class SynonymAugmenter:
    """Makes copies of texts with some words replaced by synonyms; intended to preserve labels; cheap, and seeded.

    Which words may be replaced: a candidate is a plain word that is neither protected nor a function word, negation or
    light verb (`STOP_WORDS`), does not look like a name (not capitalised within a sentence, and not a noun or adjective
    next to a name or a word that WordNet lacks), and is in no collocation that WordNet lists ("high school"). Its part
    of speech is determined without a tagger: readings in WordNet (including inflected forms) that the neighbouring
    words exclude are dropped (no verb after "a", no noun after "they"), and one must remain with at least 80 % of the
    uses that WordNet's annotators tagged. A participle that can be an adjective counts as one where it is used as one
    ("an engaging film"). Words in `DATED_SENSES`, and words that govern a preposition or clause ("rely on"), are not
    replaced.

    What replaces them: words of the same synset; for an adjective also those of its cluster (its head, and the head's
    other satellites); for an adverb those derived from its adjective's synonyms. The evidence for each is the share of
    the two words' uses that have a common meaning in WordNet (`Thesaurus`). A synonym must be new to the text, agree
    with a preceding "a" or "an", and not be a name, a multiword or a mere variant ("concept", "conception"). It takes
    the same form (plural, past, ...), and is not used if that form is not certain. A verb must have the same sentence
    frames. For a single text, half the uses of both words must have the meaning, and WordNet's annotators must have
    seen both.

    What texts add: `augment_dataset` counts the words of its texts (`WordUsage`). If they have 20,000 or more, the
    evidence is combined with the similarity of the two words' neighbours, in the texts and in WordNet's definitions and
    examples, and better synonyms are drawn more often. A synonym must be common in the texts, and occur there with the
    labels that the word has. Phrases and titles there are not changed ("big screen").

    Case, spacing and punctuation are preserved.

    Args:
        wordnet: an open `WordNet`.
        rate: the share of a text's words to replace, above 0 and at most 1. At least one is replaced if any can be, and
            never more than can be; `augment_dataset` reports the share that was reached.
        copies: how many different copies of a text to make, at least 1.
        pos_aware: False skips the rules on part of speech: the most frequent reading is used whatever the neighbours.
        protected: more words never to replace (surface forms or base forms; case does not matter).
        seed: together with the index of a text it determines everything drawn for that text.
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
        self._thesaurus = Thesaurus(self._lexicon)
        self._grammar = Grammar(self._lexicon, pos_aware)
        self._usage: WordUsage | None = None
        self._options: dict[str, dict[Reading, tuple[Option, ...]]] = {}

    def augment(self, text: str, index: int) -> list[str]:
        """Copies of `text`: at most `copies`, all different from it and from one another; none if no word qualifies.

        The result depends only on the arguments, the settings and (seed, index), not on the order of calls, the process
        or PYTHONHASHSEED.
        """
        variants = [self.variant(text, index, copy) for copy in range(self.copies)]
        return [variant for variant in dict.fromkeys(variants) if variant != text]

    def variant(self, text: str, index: int, copy: int = 0, part: str = "") -> str:
        """Copy number `copy` of `text`, or `text` itself if no word qualifies; `part` tells columns of a row apart."""
        tokens = split(text)
        plan = self.plan(self.sites(text, tokens), len(tokens), index, copy, part)
        return replaced(text, [(site, site.options[0]) for site in plan.sites[: plan.number]])

    def plan(
        self, sites: Sequence[Site], words: int, index: int, copy: int = 0, part: str = "", rate: float | None = None
    ) -> Plan:
        """Draws how many of a text's `words` to replace, the order in which to try its sites, and the options of each.

        Options with a greater weight are more likely to come first. rate: instead of the augmenter's own.
        """
        if not sites:
            return Plan(0, ())
        # Seeded by a string, which Python's random module hashes with SHA-512.
        rng = random.Random(f"{self.seed}/{index}/{copy}/{part}")
        wanted = (self.rate if rate is None else rate) * words
        number = max(1, int(wanted) + (rng.random() < wanted % 1))
        drawn = rng.sample(sites, len(sites)) if len(sites) > 1 else sites
        return Plan(number, tuple(_shuffled(site, rng) for site in drawn))

    def sites(self, text: str, tokens: Tokens, usage: WordUsage | None = None) -> list[Site]:
        """The words of `text`, split into `tokens`, that may be replaced, in order.

        Args:
            text: the text.
            tokens: its words, as `split` returns them.
            usage: of the texts that this one belongs to; if it is large enough, a synonym must be common there.
        """
        found = []
        words = tokens.words
        self._begin(usage)
        for i, word in enumerate(words):
            readable = self._options.get(word)
            if readable is None:
                readable = self._options[word] = self._find_readable(word, usage)
            if not readable:
                continue
            token = tokens[i]
            reading = self._grammar.reading(token)
            if reading not in readable or has_name_capitals(text, tokens, i):
                continue
            options = tuple(o for o in readable[reading] if o.form not in words and agrees(token.before, o.form))
            if not options or self._lexicon.collocated(words, i):
                continue
            if usage is None or not usage.enough or not usage.phrase(token):
                found.append(Site(token, reading.lemma, options))
        return found

    def _begin(self, usage: WordUsage | None) -> None:
        """Clears what was looked up for other texts."""
        if usage is not self._usage:
            self._usage, self._options = usage, {}

    def _find_readable(self, word: str, usage: WordUsage | None) -> dict[Reading, tuple[Option, ...]]:
        """What may stand for each reading of a word."""
        if PLAIN.fullmatch(word) is None or word in self.stop_words or word in self.protected:
            return {}
        if usage is not None and usage.enough and not usage.comparable(word):
            return {}
        found = {}
        for reading, _ in self._lexicon.weighed(word):
            if reading.lemma in self.stop_words or reading.lemma in self.protected:
                continue
            synonyms = self._thesaurus.synonyms(reading)
            if usage is not None and usage.enough:
                options = usage.options(word, reading.pos, synonyms)
            else:
                options = tuple(Option(s.form, s.lemma, s.evidence) for s in synonyms if s.tagged and s.likely)
            if options:
                found[reading] = options
        return found


def _shuffled(site: Site, rng: random.Random) -> Site:
    """The site with its options in an order drawn without replacement, by the squares of their weights.

    Source: Efraimidis and Spirakis 2006, "Weighted random sampling with a reservoir": the largest u ** (1 / w) comes
    first. Logarithms are compared, because the power underflows to 0 for most u if w is small.
    """
    if len(site.options) == 1:
        return site
    keys = {option: math.log(1 - rng.random()) / option.weight**2 for option in site.options}
    return Site(site.token, site.lemma, tuple(sorted(site.options, key=keys.__getitem__, reverse=True)))


def replaced(text: str, choices: Iterable[tuple[Site, Option]]) -> str:
    """`text` with the word of each site replaced, with the same capitals."""
    pieces: list[str] = []
    at = 0
    for site, option in sorted(choices, key=lambda choice: choice[0].token.start):
        pieces += [text[at : site.token.start], cased_like(site.token.text, option.form)]
        at = site.token.end
    return "".join([*pieces, text[at:]])
