import os
import pickle
import time
from pathlib import Path

import pytest
from small_wndb import MEANINGS, write_wndb

from sparseq.augment import WordNet, find_wordnet, load_wordnet
from sparseq.errors import InputError


def test_synonyms_come_in_order_of_frequency_without_multiwords(small: WordNet) -> None:
    assert small.synonyms("movie", "noun") == ("film",)
    assert small.synonyms("Movie", "noun", multiword=True) == ("film", "motion picture")
    assert small.synonyms("be", "noun") == ("beryllium",)
    assert small.synonyms("be", "verb") == ("exist",)
    assert small.synonyms("school", "noun") == ()
    assert small.synonyms("nosuchword", "noun") == ()


def test_counts_and_synset_details(small: WordNet) -> None:
    assert small.counts("film", "noun") == (38, 5)
    asleep = small.synset("adj", small.offsets("awake", "adj")[0])
    assert (asleep.words[0].lemma, asleep.words[0].marker) == ("awake", "p")
    assert small.synset("verb", small.offsets("stop", "verb")[0]).words[0].frames == {1, 2}
    paris = small.synset("noun", small.offsets("paris", "noun")[0])
    assert paris.instance and paris.words[0].lemma == "Paris"
    assert "high school" in small and "low school" not in small


def test_irregular_forms(small: WordNet) -> None:
    assert small.bases("children", "noun") == ("child",)
    assert small.irregular("go", "verb") == ("went", "gone")


def test_crlf_copies_are_read_alike(tmp_path: Path, small: WordNet) -> None:
    crlf = WordNet(write_wndb(tmp_path, MEANINGS, "\r\n"))
    for meaning in MEANINGS:
        for word in meaning.words:
            lemma = word.partition("(")[0].replace("_", " ")
            expected = small.synonyms(lemma, meaning.pos, multiword=True)  # type: ignore[arg-type]
            assert crlf.synonyms(lemma, meaning.pos, multiword=True) == expected  # type: ignore[arg-type]


def test_pickles_by_its_path(small: WordNet) -> None:
    packed = pickle.dumps(small)
    assert len(packed) < 1000
    assert pickle.loads(packed).synonyms("movie", "noun") == ("film",)


def test_unknown_pos(small: WordNet) -> None:
    with pytest.raises(InputError, match="pos must be one of noun, verb, adj, adv"):
        small.synonyms("movie", "preposition")  # type: ignore[arg-type]


def test_bad_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no WordNet folder"):
        WordNet(tmp_path / "nowhere")
    folder = write_wndb(tmp_path / "w", MEANINGS)
    data = (folder / "data.noun").read_bytes()
    (folder / "data.noun").write_bytes(b"  shifted\n" + data)
    with pytest.raises(InputError, match=r"data\.noun is not in WordNet's text format"):
        WordNet(folder).synonyms("movie", "noun")
    (folder / "data.noun").unlink()
    with pytest.raises(InputError, match=r"lacks data\.noun"):
        WordNet(folder)


def test_find_wordnet(wndb: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSEQ_WORDNET", str(tmp_path / "nowhere"))
    assert find_wordnet(wndb) == wndb
    with pytest.raises(InputError, match="there is no WordNet folder"):
        find_wordnet()
    monkeypatch.setenv("SPARSEQ_WORDNET", str(wndb))
    assert find_wordnet() == wndb
    assert load_wordnet() is load_wordnet()


def test_find_wordnet_in_nltk_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPARSEQ_WORDNET", raising=False)
    monkeypatch.setenv("SPARSEQ_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    if Path("/usr/share/wordnet").is_dir():
        pytest.skip("this machine has a WordNet of its own, which comes first")
    folder = write_wndb(tmp_path / "nltk" / "corpora" / "wordnet", MEANINGS)
    monkeypatch.setenv("NLTK_DATA", os.pathsep.join(["", str(tmp_path / "nltk")]))
    assert find_wordnet() == folder


def test_absent_wordnet_names_the_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparseq.augment.wordnet.find_wordnet", lambda path: None)
    with pytest.raises(InputError, match=r"SPARSEQ_WORDNET.*wordnet-base.*wordnet_dir"):
        load_wordnet()


def test_real_wordnet_is_quick_and_right(real: WordNet) -> None:
    started = time.process_time()
    fresh = WordNet(real.path)
    assert time.process_time() - started < 2.5
    assert fresh.synonyms("movie", "noun")[0] == "film"
    assert fresh.synonyms("quickly", "adv")[:2] == ("rapidly", "speedily")
    assert "beryllium" in fresh.synonyms("be", "noun") and "beryllium" not in fresh.synonyms("be", "verb")
    assert fresh.counts("movie", "noun") == (26,)


def test_looking_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container whose user has no entry in the system's list of users."""

    def nobody(user: int) -> object:
        raise KeyError(user)

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("SPARSEQ_WORDNET", raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    find_wordnet()
    with pytest.raises(InputError, match="home that is not known"):
        find_wordnet("~/wordnet")
