import pytest

from sparseq.augment import WordNet
from sparseq.augment.morphology import Form, Reading, inflect, readings
from sparseq.augment.wordnet import Pos


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
        ("hit", "verb", "past", None),
    ],
)
def test_inflect(small: WordNet, lemma: str, pos: Pos, form: Form, expected: str | None) -> None:
    assert inflect(small, lemma, pos, form) == expected


def test_regular_forms_of_real_words_come_back_to_their_base(real: WordNet) -> None:
    for lemma, pos, form in [("watch", "verb", "past"), ("critic", "noun", "plural"), ("begin", "verb", "gerund")]:
        word = inflect(real, lemma, pos, form)  # type: ignore[arg-type]
        assert word is not None and Reading(pos, lemma, form) in readings(real, word)  # type: ignore[arg-type]
