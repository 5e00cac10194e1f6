import re

import pytest

from sparseq.augment import WordNet
from sparseq.augment.irregular import BASE_PARTICIPLES, UNCHANGED_VERBS
from sparseq.augment.morphology import Form, Reading, inflect, readings
from sparseq.augment.wndb import Pos


def test_readings(small: WordNet) -> None:
    assert readings(small, "movies") == (Reading("noun", "movie", "plural"),)
    assert readings(small, "children") == (Reading("noun", "child", "plural"),)
    assert readings(small, "bought") == (Reading("verb", "buy", "past"),)
    assert readings(small, "hating") == (Reading("verb", "hate", "gerund"),)
    assert readings(small, "stopping") == (Reading("verb", "stop", "gerund"),)
    assert readings(small, "replies") == (Reading("verb", "reply", "third"),)
    assert set(readings(small, "answers")) == {Reading("noun", "answer", "plural"), Reading("verb", "answer", "third")}
    assert readings(small, "xyzzy") == ()


@pytest.mark.parametrize(
    ("lemma", "pos", "form", "expected"),
    [
        ("film", "noun", "plural", "films"),
        ("story", "noun", "plural", "stories"),
        ("child", "noun", "plural", "children"),
        ("woman", "noun", "plural", "women"),
        ("human", "noun", "plural", "humans"),
        ("catfish", "noun", "plural", None),
        ("box", "noun", "plural", "boxes"),
        ("purchase", "verb", "past", "purchased"),
        ("purchase", "verb", "gerund", "purchasing"),
        ("cry", "verb", "past", "cried"),
        ("plan", "verb", "past", "planned"),
        ("lie", "verb", "gerund", "lying"),
        ("see", "verb", "gerund", "seeing"),
        ("echo", "verb", "third", "echoes"),
        ("buy", "verb", "past", "bought"),
        ("go", "verb", "past", None),
        ("stomach", "noun", "plural", "stomachs"),
        ("epoch", "noun", "plural", "epochs"),
        ("monarch", "noun", "plural", "monarchs"),
        ("patriarch", "noun", "plural", "patriarchs"),
        ("tech", "noun", "plural", "techs"),
        ("search", "noun", "plural", "searches"),
        ("arch", "noun", "plural", "arches"),
        ("parch", "verb", "third", "parches"),
        ("coach", "noun", "plural", "coaches"),
        ("stomach", "verb", "third", "stomachs"),
        ("series", "noun", "plural", None),
        ("politics", "noun", "plural", None),
        ("catharsis", "noun", "plural", None),
        ("bus", "noun", "plural", "buses"),
        ("lens", "noun", "plural", "lenses"),
        ("soliloquy", "noun", "plural", "soliloquies"),
        ("woo", "verb", "third", "woos"),
        ("solo", "verb", "third", None),
        ("have", "verb", "third", None),
        ("cypher", "verb", "past", "cyphered"),
        ("tarmac", "verb", "gerund", "tarmacking"),
        ("singe", "verb", "gerund", "singeing"),
        ("show", "verb", "past", None),
        ("work", "verb", "past", "worked"),
        ("overcome", "verb", "past", None),
        ("typeset", "verb", "past", None),
        ("hit", "verb", "past", None),
    ],
)
def test_inflect(small: WordNet, lemma: str, pos: Pos, form: Form, expected: str | None) -> None:
    assert inflect(small, lemma, pos, form) == expected


def test_a_form_that_is_not_certain_is_not_read(small: WordNet) -> None:
    assert readings(small, "hitted") == ()
    assert inflect(small, "rebuy", "verb", "past") is None  # "rebought": the exception lists have "buy" alone
    assert inflect(small, "grandchild", "noun", "plural") is None
    assert inflect(small, "unstop", "verb", "gerund") is None  # "unstopping"


RULES = {
    "noun": "s: ses:s ves:f xes:x zes:z ches:ch shes:sh men:man ies:y",
    "verb": "s: ies:y es:e es: ed:e ed: ing:e ing:",
}


def exceptions(wordnet: WordNet, pos: Pos) -> dict[str, list[str]]:
    lines = (wordnet.path / f"{pos}.exc").read_text().splitlines()
    return {form: bases for form, *bases in map(str.split, lines)}


@pytest.mark.parametrize("pos", ["noun", "verb"])
def test_every_listed_exception_is_read(real: WordNet, pos: Pos) -> None:
    for form, bases in exceptions(real, pos).items():
        expected = {base for base in bases if real.offsets(base, pos)}
        read = {reading.lemma for reading in readings(real, form) if reading.pos == pos and reading.form != "base"}
        assert expected - {form} <= read | UNCHANGED_VERBS | BASE_PARTICIPLES, form


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pos", "forms"), [("noun", ("plural",)), ("verb", ("third", "past", "gerund"))], ids=["noun", "verb"]
)
def test_every_inflected_form_comes_back(real: WordNet, pos: Pos, forms: tuple[Form, ...]) -> None:
    """Each form of each noun and verb is read as that form, and by `morphy` as that base form where it has a rule."""
    listed = exceptions(real, pos)
    rules = [rule.split(":") for rule in RULES[pos].split()]
    checked = 0
    for lemma in real.lemmas(pos):
        for form in forms if re.fullmatch("[a-z]{3,}", lemma) else ():
            word = inflect(real, lemma, pos, form)
            if word is None:
                continue
            checked += 1
            assert Reading(pos, lemma, form) in readings(real, word), (lemma, word)
            bases = listed.get(word, [word[: -len(old)] + new for old, new in rules if word.endswith(old)])
            known = [base for base in bases if real.offsets(base, pos)]
            if word in ("skied", "stymied"):  # morphy has other verbs for them, and "-ied" for none
                continue
            assert not known or word in listed or {lemma, lemma + lemma[-1]} & set(known), (lemma, word, known)
    assert checked > 20_000


def test_regular_forms_of_real_words_come_back_to_their_base(real: WordNet) -> None:
    for lemma, pos, form in [("watch", "verb", "past"), ("critic", "noun", "plural"), ("begin", "verb", "gerund")]:
        word = inflect(real, lemma, pos, form)  # type: ignore[arg-type]
        assert word is not None and Reading(pos, lemma, form) in readings(real, word)  # type: ignore[arg-type]
