import os
import pickle
import time
from pathlib import Path

import pytest
from small_wndb import MEANINGS, write_wndb

from sparseq.augment import WordNet, find_wordnet, load_wordnet
from sparseq.augment.wndb import POS
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


def test_counts_are_taken_by_synset_and_not_by_sense_number(tmp_path: Path) -> None:
    """The sense numbers of `cntlist.rev` are an older release's, and its keys may name senses that are gone."""
    folder = write_wndb(tmp_path, MEANINGS)
    (folder / "cntlist.rev").write_text("film%1:00:01:: 2 38\nfilm%1:00:02:: 1 5\nfilm%1:00:09:: 1 999\n")
    lines = (folder / "index.sense").read_text().splitlines()
    (folder / "index.sense").write_text("\n".join(reversed(lines)) + "\n")
    assert WordNet(folder).counts("film", "noun") == (38, 5)
    assert WordNet(folder).counts("City", "noun") == (70,)


@pytest.mark.parametrize("line", ["film%1:00:01:: 00000001 1", "film 00000001 1 5", "film%9:00:01:: 00000001 1 5", ""])
def test_bad_counts(tmp_path: Path, line: str) -> None:
    folder = write_wndb(tmp_path, MEANINGS)
    (folder / "index.sense").write_text(f"{line}\n")
    with pytest.raises(InputError, match=r"index\.sense is not in WordNet's text format \(the line"):
        WordNet(folder)


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
    monkeypatch.setattr("sparseq.augment.finding.find_wordnet", lambda path: None)
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
    with pytest.raises(InputError, match="unknown home folder"):
        find_wordnet("~/wordnet")


def tag_counts(folder: Path) -> dict[tuple[str, str, int], int]:
    """Counts by lemma, part of speech and synset, from the sense keys of `cntlist.rev` as NLTK's `Lemma.count` does.

    A key is `lemma%ss_type:lex_filenum:lex_id:head:head_id`; its parts are read off `data.*`, where the head of a
    satellite adjective is the first word of the synset that it is similar to.
    """
    counts = dict(line.split()[::2] for line in (folder / "cntlist.rev").read_text().splitlines())
    types = {"n": 1, "v": 2, "a": 3, "r": 4, "s": 5}
    found: dict[tuple[str, str, int], int] = {}
    for pos in POS:
        data = (folder / f"data.{pos}").read_bytes().replace(b"\r\n", b"\n").decode().splitlines()
        synsets = {int(line[:8]): line.split(" | ")[0].split() for line in data if line[:1] != " "}
        for offset, fields in synsets.items():
            size, head = int(fields[3], 16), ""
            if fields[2] == "s":
                pointers = fields[5 + 2 * size :]
                target = synsets[int(pointers[pointers.index("&") + 1])]
                head = f"{target[4].split('(')[0].lower()}:{int(target[5], 16):02d}"
            for i in range(size):
                lemma, lex_id = fields[4 + 2 * i].split("(")[0].lower(), int(fields[5 + 2 * i], 16)
                key = f"{lemma}%{types[fields[2]]}:{fields[1]}:{lex_id:02d}:{head or ':'}"
                found[lemma, pos, offset] = max(int(counts.get(key, 0)), found.get((lemma, pos, offset), 0))
    return found


@pytest.mark.slow
def test_real_counts_are_those_of_the_sense_keys(real: WordNet) -> None:
    """Each of 206,941 senses; 83 differ, whose keys in `cntlist.rev` name the head with its marker: "preceding(a)"."""
    if not (real.path / "cntlist.rev").is_file():
        pytest.skip(f"{real.path} has no cntlist.rev to compare with")
    assert real.counts("highly", "adv") == (1, 0, 0)
    by_key = tag_counts(real.path)
    lemmas = {(lemma, pos) for lemma, pos, _ in by_key}
    tagged, differing = 0, []
    for lemma, pos in lemmas:
        counts = real.counts(lemma, pos)
        tagged += any(counts)
        for offset, count in zip(real.offsets(lemma, pos), counts, strict=True):
            if count != by_key[lemma, pos, offset]:
                differing.append((lemma, pos, count, by_key[lemma, pos, offset]))
    assert len(by_key) == 206941 and tagged == 23584
    assert all(pos == "adj" and theirs == 0 for _, pos, _, theirs in differing), differing
    assert len(differing) == 83
