import os
import re
import subprocess
import sys
from collections.abc import Callable

import pytest

from sparseq.augment import SynonymAugmenter, WordNet
from sparseq.augment.synonyms import Site
from sparseq.augment.tokens import split
from sparseq.augment.usage import Option, WordUsage
from sparseq.augment.words import STOP_WORDS
from sparseq.errors import InputError

Replace = Callable[[str], str]


@pytest.fixture
def every(small: WordNet) -> Replace:
    """Replaces whatever may be replaced."""
    augmenter = SynonymAugmenter(small, rate=1.0)
    return lambda text: (augmenter.augment(text, 0) or [text])[0]


def test_case_spacing_and_punctuation_stay(every: Replace) -> None:
    assert every("Movies,  I hate\tthis (Movie)!\n") == "Films,  I detest\tthis (Movie)!\n"
    assert every("A BIG STORY") == "A LARGE TALE"
    assert every("“Stories” end.") == "“Tales” end."


def test_forms_are_kept(every: Replace) -> None:
    assert every("two movies") == "two films"
    assert every("she bought it quickly") == "she purchased it rapidly"
    assert every("he hates stories") == "he detests tales"
    assert every("the setting is") == "the setting is"  # not "surroundings is"
    assert every("they are stopping .") == "they are ceasing ."


@pytest.mark.parametrize(
    "text",
    [
        "it was not",  # function words and negation
        "a motion picture of a high school",  # collocations; "school" has no synonym anyway
        "in Paris",  # a name
        "the Big City lights",  # capitals within a sentence
        "a big-city half-movie movie's",  # parts of compounds
        "be be be",  # never beryllium
        "a big movie-story",
        "",
        "... 123 ?!",
    ],
)
def test_left_alone(small: WordNet, text: str) -> None:
    augmenter = SynonymAugmenter(small, rate=1.0, protected={"big"})
    assert augmenter.augment(text, 0) == []


def test_collocations_are_left_alone(small: WordNet) -> None:
    assert SynonymAugmenter(small, rate=1.0).augment("the motion picture story", 0) == ["the motion picture tale"]


def test_part_of_speech_needs_to_be_likely(small: WordNet) -> None:
    aware, unaware = (SynonymAugmenter(small, rate=1.0, pos_aware=p) for p in (True, False))
    assert aware.augment("answer", 0) == []
    assert aware.augment("his answer", 0) == ["his response"]
    assert aware.augment("they answer", 0) == ["they reply"]
    assert unaware.augment("they answer", 0) == ["they response"]


def test_governed_words_stay(every: Replace) -> None:
    assert every("they stop at home") == "they stop at home"
    assert every("they stop .") == "they cease ."


def test_article_agrees(every: Replace) -> None:
    assert every("an honest man") == "an upright man"
    assert every("an eager man") == "an eager man"
    assert every("the eager man") == "the keen man"


def test_satellites_are_replaced_by_the_heads_that_define_them(every: Replace) -> None:
    assert every("this gorgeous story") == "this beautiful tale"
    assert every("it was gorgeously made") == "it was beautifully made"
    for other in ("the beautiful one", "a preachy one", "the tepid one", "the greatest one"):
        assert every(other) == other


def test_names_in_lower_case_and_what_stands_beside_them(every: Replace) -> None:
    assert every("the noon here") == "the midday here"
    for name in ("shanghai noon", "the noon of shanghai", "spielberg movie"):
        assert every(name).split()[-1] == name.split()[-1]
    assert every("shanghai noon") == "shanghai noon"


def test_adverbs_that_others_cannot_stand_for(every: Replace) -> None:
    assert every("it ends quickly .") == "it ends rapidly ."
    assert every("it is surely here") == "it is certainly here"
    for bound in ("as quickly as that", "it is surely no use", "surely not"):
        assert every(bound) == bound


def test_comparison_with_more(every: Replace) -> None:
    assert every("this difficult one") == "this hard one"
    assert every("a more difficult one") == "a more difficult one"


def test_part_of_speech_from_both_neighbours(every: Replace) -> None:
    assert every("the answer is here") == "the response is here"
    assert every("they could answer it") == "they could reply it"
    assert every("to answer this") == "to reply this"
    assert every("very big") == "very large"
    assert every("big answers .") == "large responses ."


def sites(augmenter: SynonymAugmenter, text: str, usage: WordUsage) -> dict[str, set[str]]:
    found = augmenter.sites(text, split(text), usage)
    return {site.token.word: {option.form for option in site.options} for site in found}


def test_texts_say_which_synonyms_are_common(small: WordNet) -> None:
    """In enough text a synonym must be used: five times in a million words, and 3 % as often as what it replaces."""
    augmenter = SynonymAugmenter(small)
    movies = ["the movie is here"] * 6000
    short, without = WordUsage(movies[:400]), WordUsage([*movies, "a story"] * 2)
    few, many = (WordUsage([*movies, *["the film is here", "a story"] * n]) for n in (179, 180))
    assert not short.enough and without.enough
    assert sites(augmenter, "a movie story", short) == sites(augmenter, "a movie story", WordUsage([]))
    text = "that movie ."
    assert sites(augmenter, text, short) == {"movie": {"film"}}
    assert sites(augmenter, text, without) == sites(augmenter, text, few) == {}
    assert sites(augmenter, text, many) == {"movie": {"film"}}


def test_texts_say_which_words_make_a_phrase(small: WordNet) -> None:
    filler = ["it is here"] * 7000
    varied = [f"{a} big city {b}" for a, b in (("the", "is"), ("a", "was"), ("this", "of"))] * 2
    common = [f"{word} there" for word in ("large", "metropolis", "big", "city") for _ in range(10)]
    augmenter, text = SynonymAugmenter(small), "one big city ."
    assert sites(augmenter, text, WordUsage([*filler, *common, *varied], STOP_WORDS)) == {}
    repeated = WordUsage([*filler, *common, *["the big city is"] * 6], STOP_WORDS)
    assert set(sites(augmenter, text, repeated)) == {"big", "city"}
    rare = WordUsage([*filler, *common, *varied, *["it is big", "this city"] * 40], STOP_WORDS)
    assert set(sites(augmenter, text, rare)) == {"big", "city"}


def test_texts_say_which_meanings_are_alike(small: WordNet) -> None:
    """Of the uses of "funny" 44 % mean amusing: that counts only if the texts use the two words alike."""
    filler = ["it is here"] * 7000
    places = [f"w{i}" for i in range(20)]
    alike = [f"{place} {word} x{place}" for place in places for word in ("funny", "amusing")]
    unlike = [f"a{word} {place}{word} {word} x{word} y{word}" for place in places for word in ("funny", "amusing")]
    augmenter = SynonymAugmenter(small)
    assert sites(augmenter, "this funny one", WordUsage([*filler, *alike] * 2)) == {"funny": {"amusing"}}
    assert sites(augmenter, "this funny one", WordUsage([*filler, *unlike] * 2)) == {}


def test_protected_words_and_stop_words(small: WordNet) -> None:
    assert SynonymAugmenter(small, rate=1.0, protected=["MOVIE"]).augment("movies", 0) == []
    assert SynonymAugmenter(small, rate=1.0).augment("not", 0) == []
    assert SynonymAugmenter(small, rate=1.0, stop_words=()).augment("not", 0) == ["non"]


def test_rate_sets_the_number_of_replacements(small: WordNet) -> None:
    text = "movie . story . city . child . quickly . " * 4
    words = text.split()
    changed = []
    for index in range(200):
        made = SynonymAugmenter(small, rate=0.1).augment(text, index)[0].split()
        changed.append(sum(a != b for a, b in zip(words, made, strict=True)))
    assert set(changed) == {2}
    one = SynonymAugmenter(small, rate=0.001).augment(text, 0)[0].split()
    assert sum(a != b for a, b in zip(words, one, strict=True)) == 1


def test_copies_differ(small: WordNet) -> None:
    text = "the movie tells a story of a city and a child"
    made = SynonymAugmenter(small, copies=8).augment(text, 0)
    assert 2 <= len(made) <= 8 and len(set(made)) == len(made) and text not in made
    assert SynonymAugmenter(small, copies=8).augment("a movie", 0) == ["a film"]


def test_depends_on_seed_and_index_alone(small: WordNet) -> None:
    texts = ["the movie tells a story of a city and a child quickly ."] * 40
    augmenter = SynonymAugmenter(small, seed=3)
    forward = [augmenter.augment(text, i) for i, text in enumerate(texts)]
    again = SynonymAugmenter(small, seed=3)
    assert [again.augment(texts[i], i) for i in reversed(range(40))] == forward[::-1]
    assert len({tuple(made) for made in forward}) > 3
    other = SynonymAugmenter(small, seed=4)
    assert [other.augment(text, i) for i, text in enumerate(texts)] != forward


@pytest.mark.parametrize(
    ("weights", "share"), [((0.02, 0.02), 1 / 2), ((0.03, 0.03), 1 / 2), ((0.1, 0.2), 1 / 5), ((0.01, 0.02), 1 / 5)]
)
def test_options_are_drawn_by_the_squares_of_their_weights(
    small: WordNet, weights: tuple[float, float], share: float
) -> None:
    """`share` is that of the first option; the tolerance is four standard errors."""
    options = tuple(Option(form, form, weight) for form, weight in zip("ab", weights, strict=True))
    augmenter, site, draws = SynonymAugmenter(small), Site(split("word")[0], "word", options), 4000
    first = sum(augmenter.plan([site], 1, index).sites[0].options[0].form == "a" for index in range(draws))
    assert first / draws == pytest.approx(share, abs=4 * (share * (1 - share) / draws) ** 0.5)


@pytest.mark.slow
def test_independent_of_hash_seed(small: WordNet) -> None:
    code = (
        "from sparseq.augment import *; import sys; a = SynonymAugmenter(WordNet(sys.argv[1]), rate=0.3, copies=3);"
        "print([a.augment('the movie tells a story of a big city and a child', i) for i in range(20)]);"
        "from sparseq.augment.usage import WordUsage; from sparseq.augment.tokens import split;"
        "texts = [f'one w{i} {w} x{i} two' for i in range(2000) for w in ('gorgeous', 'beautiful', 'stunning')];"
        "u, t = WordUsage(texts, a.stop_words, [0, 1] * 3000, a.wordnet.glosses), 'this gorgeous one';"
        "s = a.sites(t, split(t), u); print([a.plan(s, 3, i) for i in range(20)])"
    )
    printed = set()
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-c", code, str(small.path)]
        printed.add(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    assert len(printed) == 1 and "film" in (told := printed.pop()) and "Option(form='stunning'" in told


@pytest.mark.parametrize("settings", [{"rate": 0.0}, {"rate": 1.5}, {"copies": 0}, {"protected": "movie"}])
def test_bad_settings(small: WordNet, settings: dict[str, object]) -> None:
    with pytest.raises(InputError):
        SynonymAugmenter(small, **settings)  # type: ignore[arg-type]


REVIEWS = [
    "It's probably worth catching solely on its visual merits.",
    "The movie is completely predictable, and I hated the silly story.",
    "An honest, deeply moving tale about a writer who does n't believe in happy endings .",
    "Director Chris Eyre never lets his film become boring.",
    "It is not a bad film; the children in the theater enjoyed it.",
]


def test_real_words(real: WordNet) -> None:
    augmenter = SynonymAugmenter(real, rate=1.0)
    assert augmenter.augment("This movie is completely predictable.", 0)[0].startswith("This film is ")
    for text in REVIEWS:
        for made in augmenter.augment(text, 0):
            before, after = (re.findall(r"[\w']+", part) for part in (text, made))
            assert len(before) == len(after)
            for old, new in zip(before, after, strict=True):
                if old != new:
                    assert old.lower() not in STOP_WORDS and new.isalpha()
            assert ("not" in made.split()) == ("not" in text.split())
            assert ("Chris Eyre" in made) == ("Chris Eyre" in text)


def test_real_words_without_synonyms_worth_using(real: WordNet) -> None:
    augmenter = SynonymAugmenter(real, rate=1.0)
    for text in ("is it not", "the director", "New York high school", "a boast", "do n't be"):
        assert augmenter.augment(text, 0) == []
