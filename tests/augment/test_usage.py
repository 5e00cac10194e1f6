"""What a dataset tells of its words."""

from pathlib import Path

import numpy as np
import pytest
from small_wndb import MEANINGS, Meaning, write_wndb

from sparseq.augment import SynonymAugmenter, WordNet
from sparseq.augment.contexts import Contexts
from sparseq.augment.corpus import BOUNDARY, Corpus
from sparseq.augment.lexicon import Lexicon
from sparseq.augment.morphology import Reading
from sparseq.augment.phrases import phrases
from sparseq.augment.senses import sense_shares
from sparseq.augment.thesaurus import Synonym, Thesaurus
from sparseq.augment.tokens import split
from sparseq.augment.usage import Option, WordUsage
from sparseq.augment.words import STOP_WORDS


def found(wordnet: WordNet, text: str, texts: list[str], labels: list[int] | None = None) -> dict[str, set[str]]:
    usage = WordUsage(texts, STOP_WORDS, labels, wordnet.glosses)
    assert usage.enough
    sites = SynonymAugmenter(wordnet).sites(text, split(text), usage)
    return {site.token.word: {option.form for option in site.options} for site in sites}


PLACES = [f"w{i}" for i in range(20)]
FILLER = ["it is here"] * 7000


def alike(*words: str) -> list[str]:
    return [f"one {place} {word} x{place} two" for place in PLACES for word in words]


def test_a_corpus_numbers_its_words_and_keeps_texts_apart() -> None:
    corpus = Corpus(["A big, big film", "", "a\0film"])
    words = [corpus.names[i] if i != BOUNDARY else "|" for i in corpus.ids]
    assert " ".join(words) == "| | a big , big film | | | | a film | |"
    assert corpus.count("big") == 2 and corpus.count("film") == 2 and corpus.count("none") == corpus.count("\0") == 0
    assert [int(t) for t in corpus.text[corpus.ids > 0]] == [0] * 5 + [2] * 2
    assert corpus.read(["big none"]).tolist() == [0, 0, corpus.numbers["big"], len(corpus.names), 0, 0]


def test_a_sample_of_pairs_holds_both_texts_of_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [text for i in range(200) for text in (f"first{i} aaaa", f"second{i} bbb")]
    for share in (2, 3, 4, 5):  # of the characters a half, a third, ...
        monkeypatch.setattr("sparseq.augment.usage.MOST_CHARACTERS", sum(map(len, texts)) // share)
        names = WordUsage(texts, texts_per_row=2).corpus.names
        rows = {
            kind: {name.removeprefix(kind) for name in names if name.startswith(kind)} for kind in ("first", "second")
        }
        assert rows["first"] == rows["second"] and len(rows["first"]) == pytest.approx(200 / share, abs=1)


def test_a_sample_misses_nothing_that_comes_at_intervals(small: WordNet, monkeypatch: pytest.MonkeyPatch) -> None:
    turns = zip(alike("gorgeous") * 3, alike("beautiful") * 3, strict=True)
    texts = [*(text for pair in turns for text in pair), *FILLER, *FILLER]
    monkeypatch.setattr("sparseq.augment.usage.MOST_CHARACTERS", sum(map(len, texts)) * 2 // 3)
    assert found(small, "this gorgeous one", texts) == {"gorgeous": {"beautiful"}}


def test_likeness_is_the_cosine_of_positive_information() -> None:
    """Against the formula, word by word."""
    texts = [
        f"{a} {word} {b}" for a, b, word in zip("abcab" * 16, "xyzzx" * 16, ["p", "q", "r", "s"] * 20, strict=True)
    ]
    corpus = Corpus([f"{text} {i}" for i, text in enumerate(texts)])  # no run of five is repeated
    wanted = np.array([name in {"p", "q", "r", "s"} for name in corpus.names])
    contexts = Contexts(corpus.ids, corpus.read([]), wanted)
    counts: dict[str, dict[tuple[int, int], int]] = {}
    for i, number in enumerate(corpus.ids.tolist()):
        if wanted[number]:
            own = counts.setdefault(corpus.names[number], {})
            for place in (-2, -1, 1, 2):
                key = place, int(corpus.ids[i + place])
                own[key] = own.get(key, 0) + 1
    columns = {key for own in counts.values() for key in own}
    smoothed = {key: sum(own.get(key, 0) for own in counts.values()) ** 0.75 for key in columns}
    total = sum(smoothed.values())
    vectors = {
        word: {key: max(0.0, np.log(uses * total / (sum(own.values()) * smoothed[key]))) for key, uses in own.items()}
        for word, own in counts.items()
    }
    for one in "pqrs":
        others = [corpus.numbers[word] for word in "pqrs"]
        told = contexts.likeness(corpus.numbers[one], others)
        for other, cosine in zip("pqrs", told, strict=True):
            product = sum(value * vectors[other].get(key, 0.0) for key, value in vectors[one].items())
            lengths = [np.sqrt(sum(value**2 for value in vectors[word].values())) for word in (one, other)]
            assert cosine == pytest.approx(product / (lengths[0] * lengths[1]), abs=1e-12)
    assert not contexts.known(corpus.numbers["a"])


def test_repeated_runs_count_once() -> None:
    once = Corpus([*alike("p"), *alike("q")])
    again = Corpus([*alike("p"), *alike("q") * 3])
    values = []
    for corpus in (once, again):
        wanted = np.array([name in {"p", "q"} for name in corpus.names])
        contexts = Contexts(corpus.ids, corpus.read([]), wanted)
        values.append(contexts.likeness(corpus.numbers["p"], [corpus.numbers["q"]])[0])
    assert values[0] == pytest.approx(values[1], rel=1e-12) and values[0] > 0.9


def test_phrases_are_pairs_that_meet_often_in_varied_places() -> None:
    varied = [f"{a} big city {b}" for a, b in (("the", "is"), ("a", "was"), ("this", "of"))]
    corpus = Corpus([*varied, *["one small town two"] * 9, "good day here", "bad day there"])
    assert phrases(corpus, np.array([name.isalpha() for name in corpus.names])) == {("big", "city")}
    assert phrases(corpus, np.zeros(len(corpus.names), bool)) == frozenset()


def test_shares_of_meanings(small: WordNet) -> None:
    shares = sense_shares(small, "funny", "adj")
    strange, amusing = small.offsets("funny", "adj")
    assert shares.keys() == {strange, amusing} and sum(shares.values()) == pytest.approx(1)
    assert shares[strange] == pytest.approx((8 + 2 / (1 + 2**-1.5)) / 17)
    assert sense_shares(small, "rebuy", "verb") == {small.offsets("rebuy", "verb")[0]: 1.0}
    assert sense_shares(small, "nosuchword", "noun") == {}


def test_evidence_is_shared_meaning_both_ways(small: WordNet) -> None:
    thesaurus = Thesaurus(Lexicon(small, STOP_WORDS))
    told = {s.form: s for s in thesaurus.synonyms(Reading("noun", "movie", "plural"))}
    of_film = sense_shares(small, "film", "noun")[small.offsets("movie", "noun")[0]]
    assert told.keys() == {"films"} and told["films"].evidence == pytest.approx(of_film**0.5, abs=1e-6)
    assert told["films"].likely and told["films"].tagged
    gorgeous = {s.form: s for s in thesaurus.synonyms(Reading("adj", "gorgeous", "base"))}
    assert gorgeous.keys() == {"beautiful", "stunning"}
    assert gorgeous["beautiful"].likely and gorgeous["beautiful"].evidence == pytest.approx(1)  # defined by it
    assert not gorgeous["stunning"].likely and gorgeous["stunning"].evidence == pytest.approx(0.8**0.5, abs=1e-6)
    of_head = {s.form: s.evidence for s in thesaurus.synonyms(Reading("adj", "beautiful", "base"))}
    assert of_head == {"gorgeous": pytest.approx(0.6**0.5, abs=1e-6), "stunning": pytest.approx(0.6**0.5, abs=1e-6)}
    assert thesaurus.synonyms(Reading("adj", "fourth", "base")) == ()  # "ninth" is not similar in meaning


@pytest.mark.parametrize(
    ("word", "other"), [("purchased", "bought"), ("attempted", "tried"), ("soars", "flies"), ("detesting", "hating")]
)
def test_a_synonym_need_not_stand_in_its_base_form(tmp_path: Path, word: str, other: str) -> None:
    """Whatever the letters that it has in common with its base form."""
    pairs = (["buy", "purchase"], ["try", "attempt"], ["fly", "soar"], ["hate", "detest"])
    others = [meaning for meaning in MEANINGS if meaning.pos != "verb"]
    wordnet = WordNet(write_wndb(tmp_path, [*others, *(Meaning("verb", pair, [40, 30]) for pair in pairs)]))
    texts = [f"place{place} they {used} it z{place}" for place in PLACES for used in (word, other)]
    assert found(wordnet, f"they {word} it", [*FILLER, *texts]) == {word: {other}}


def test_members_of_a_cluster_must_stand_in_the_same_places(small: WordNet) -> None:
    others = ("stunning", "beautiful")
    unlike = [f"v{word} {place}{word} {word} x{place}{word} z{word}" for place in PLACES for word in others]
    near = [*FILLER, *alike("gorgeous", "stunning", "beautiful")]
    far = [*FILLER, *alike("gorgeous"), *unlike]
    assert found(small, "this gorgeous one", near) == {"gorgeous": {"beautiful", "stunning"}}
    assert found(small, "this gorgeous one", far) == {}


def test_the_last_digits_of_a_likeness_decide_nothing(small: WordNet, monkeypatch: pytest.MonkeyPatch) -> None:
    """They differ between processors; the weight is at its threshold here, and one place beside it."""
    usage = WordUsage([*FILLER, *alike("gorgeous", "stunning")], STOP_WORDS)
    synonym = Synonym("stunning", "stunning", evidence=0.7, likely=False, tagged=True)
    told = []
    for likeness in (0.05, np.nextafter(0.05, 0), np.nextafter(0.05, 1)):
        monkeypatch.setattr(Contexts, "likeness", lambda *_, likeness=likeness: [float(likeness)])
        told.append(usage.options("gorgeous", "adj", [synonym]))
    assert told == [(Option("stunning", "stunning", 0.035),)] * 3


@pytest.mark.parametrize(("label", "kept"), [(1, True), (0, False)])
def test_synonyms_have_the_labels_of_the_word(small: WordNet, label: int, kept: bool) -> None:
    """The word stands in texts of label 1: what stands in those of label 0 alone says something else."""
    mine, its = alike("gorgeous"), alike("beautiful")
    labels = [0, 1] * 3500 + [1] * len(mine) + [label] * len(its)
    told = found(small, "this gorgeous one", [*FILLER, *mine, *its], labels)
    assert told == ({"gorgeous": {"beautiful"}} if kept else {})


def test_labels_that_are_no_classes_are_left_aside(small: WordNet) -> None:
    mine, its = alike("gorgeous"), alike("beautiful")
    texts = [*FILLER, *mine, *its]
    for low, high in ((-1, 1), (0, 100)):
        labels = [low] * (len(texts) - len(mine)) + [high] * len(mine)
        assert found(small, "this gorgeous one", texts, labels) == {"gorgeous": {"beautiful"}}


@pytest.mark.parametrize(
    ("text", "adjective"),
    [
        ("the engaging story", True),
        ("it is very engaging", True),
        ("it is engaging .", True),
        ("funny , engaging , honest", True),
        ("they are engaging him", False),
        ("for engaging a child", False),
    ],
)
def test_participles_that_stand_as_adjectives(small: WordNet, text: str, adjective: bool) -> None:
    told = found(small, text, [*FILLER, *alike("engaging", "charming"), *alike("story") * 2])
    assert ("engaging" in told) is adjective
