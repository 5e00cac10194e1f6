"""WordNet from its own text files (the WNDB format), read lazily.

Source of the format: the manual pages wndb(5WN) and senseidx(5WN) of WordNet 3.0. Used are, for each part of speech,
`index.*` (lemma -> its synsets, most frequent first), `data.*` (the synsets, addressed by byte offset), `*.exc`
(irregular inflections), and `index.sense` (how often people tagged each sense in running text).

`cntlist.rev` has those counts too. In release 3.0 its sense numbers are those of an older release, and its sense keys
lack 83 of the tagged senses, so that it is not read.
"""

import os
import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Literal

from sparseq import assets
from sparseq.errors import InputError
from sparseq.paths import expanded
from sparseq.reading import read_bytes, read_text
from sparseq_kernels.untrusted import quoted

Pos = Literal["noun", "verb", "adj", "adv"]
POS: tuple[Pos, ...] = ("noun", "verb", "adj", "adv")
FILES: tuple[str, ...] = (*(f"{kind}.{pos}" for kind in ("index", "data") for pos in POS), "index.sense")

_SENSE_KEY_POS: dict[str, Pos] = {"1": "noun", "2": "verb", "3": "adj", "4": "adv", "5": "adj"}
# A line `lemma%ss_type:lex_filenum:lex_id:head_word:head_id synset_offset sense_number tag_cnt`.
_SENSE_LINE = re.compile(r"^(\S+?)%([1-5]):\S* (\d{8}) \d+ (\d+)\s*$", re.MULTILINE)


@dataclass(frozen=True)
class Word:
    """One word of a synset.

    Attributes:
        lemma: as written in WordNet, with spaces for underscores ("motion picture", "Paris").
        marker: where an adjective may stand: "a" before its noun only, "p" in the predicate only, "ip" after its
            noun only, "" anywhere.
        frames: numbers of the sentence frames that this verb takes in this sense; empty for other parts of speech.
    """

    lemma: str
    marker: str = ""
    frames: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Synset:
    """One meaning.

    Attributes:
        words: the words that share it.
        instance: whether it is an instance ("Paris" is an instance of "city").
        heads: of a satellite adjective ("gorgeous"), the offset of the head that it is similar to ("beautiful"); empty
            for other synsets.
        gloss: the definition and examples.
        pertains: pairs of a word's number (from 0) and the offset and word number of the adjective that this adverb
            comes from.
    """

    words: tuple[Word, ...]
    instance: bool
    heads: tuple[int, ...] = ()
    gloss: str = ""
    pertains: tuple[tuple[int, int, int], ...] = ()


class WordNet:
    """The synsets of a WNDB folder.

    Only the indexes are read at once (about 0.3 s); a synset is parsed when it is first asked for.

    Args:
        path: folder with `index.*`, `data.*` and `index.sense`; `*.exc` are used where present.

    Raises:
        InputError: no such folder, a file missing, or a file that is not in the format.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        _check_folder(self.path)
        self._index: dict[Pos, dict[str, str]] = {pos: self._read_index(pos) for pos in POS}
        self._data: dict[Pos, bytes] = {pos: self._read_data(pos) for pos in POS}
        self._counts = self._read_counts()
        self._bases: dict[Pos, dict[str, tuple[str, ...]]] = {pos: self._read_exceptions(pos) for pos in POS}
        self._offsets: dict[tuple[str, Pos], tuple[int, ...]] = {}
        self._synsets: dict[tuple[Pos, int], Synset] = {}
        self._irregular = {pos: _inverted(bases) for pos, bases in self._bases.items()}

    def __contains__(self, lemma: object) -> bool:
        """Whether `lemma` (lower case, spaces between words) is in WordNet as any part of speech."""
        return isinstance(lemma, str) and any(lemma.replace(" ", "_") in self._index[pos] for pos in POS)

    def __reduce__(self) -> tuple[type["WordNet"], tuple[Path]]:
        return type(self), (self.path,)  # another process reads the files itself rather than receive 30 MB

    def lemmas(self, pos: Pos) -> tuple[str, ...]:
        """All lemmas of a part of speech in lower case, with spaces between words, in alphabetical order."""
        return tuple(lemma.replace("_", " ") for lemma in self._index[pos])

    def offsets(self, lemma: str, pos: Pos) -> tuple[int, ...]:
        """Byte offsets of the synsets of `lemma`, most frequent sense first; empty when WordNet lacks it."""
        if (lemma, pos) not in self._offsets:
            self._offsets[lemma, pos] = self._find_offsets(lemma, pos)
        return self._offsets[lemma, pos]

    def _find_offsets(self, lemma: str, pos: Pos) -> tuple[int, ...]:
        entry = self._index[pos].get(_key(lemma))
        if entry is None:
            return ()
        fields = entry.split()
        try:
            return tuple(int(field) for field in fields[len(fields) - int(fields[1]) :])
        except (IndexError, ValueError) as error:
            raise self._malformed(f"index.{pos}", f"the line of {lemma!r}") from error

    def counts(self, lemma: str, pos: Pos) -> tuple[int, ...]:
        """How often each sense of `offsets(lemma, pos)` was tagged in WordNet's annotated texts, in that order."""
        tagged = self._counts[pos].get(_key(lemma), {})
        return tuple(tagged.get(offset, 0) for offset in self.offsets(lemma, pos))

    def synset(self, pos: Pos, offset: int) -> Synset:
        """The synset at `offset` of `data.<pos>`, as `offsets` gives it."""
        if (pos, offset) not in self._synsets:
            self._synsets[pos, offset] = self._read_synset(pos, offset)
        return self._synsets[pos, offset]

    def _read_synset(self, pos: Pos, offset: int) -> Synset:
        data = self._data[pos]
        end = data.find(b"\n", offset)
        line = data[offset : end if end >= 0 else len(data)]
        try:
            entry, _, gloss = line.decode("utf-8").partition(" | ")
            fields = entry.split()
            if int(fields[0]) != offset:
                raise ValueError
            return _parse_synset(fields, gloss.strip())
        except (IndexError, ValueError) as error:
            raise self._malformed(f"data.{pos}", f"byte {offset}") from error

    def adjective(self, adverb: str) -> str | None:
        """The adjective that an adverb in its most frequent sense comes from ("beautifully" -> "beautiful")."""
        for offset in self.offsets(adverb, "adv")[:1]:
            synset = self.synset("adv", offset)
            for number, target, word in synset.pertains:
                if _key(synset.words[number].lemma) == _key(adverb):
                    return self.synset("adj", target).words[word].lemma
        return None

    def synonyms(self, lemma: str, pos: Pos, *, multiword: bool = False) -> tuple[str, ...]:
        """Words that share a synset with `lemma`, each once, those of its most frequent sense first.

        Args:
            lemma: base form; case does not matter.
            pos: "noun", "verb", "adj" or "adv".
            multiword: whether to give synonyms of more than one word ("motion picture") too.

        Returns:
            Base forms in WordNet's own case; empty when WordNet lacks the lemma or it stands alone.

        Raises:
            InputError: unknown part of speech.
        """
        if pos not in POS:
            raise InputError(f"pos must be one of {', '.join(POS)}, not {pos!r}")
        found: dict[str, None] = {}
        for offset in self.offsets(lemma, pos):
            for word in self.synset(pos, offset).words:
                if _key(word.lemma) != _key(lemma) and (multiword or " " not in word.lemma):
                    found[word.lemma] = None
        return tuple(found)

    @cached_property
    def collocations(self) -> frozenset[str]:
        """All lemmas of more than one word, in lower case with spaces between words."""
        return frozenset(lemma.replace("_", " ") for pos in POS for lemma in self._index[pos] if "_" in lemma)

    def bases(self, form: str, pos: Pos) -> tuple[str, ...]:
        """Base forms of an irregular `form` ("went" -> "go") by `<pos>.exc`; empty when it is not listed."""
        return self._bases[pos].get(form, ())

    def irregular(self, lemma: str, pos: Pos) -> tuple[str, ...]:
        """Irregular inflected forms of `lemma` ("go" -> "gone", "went") by `<pos>.exc`."""
        return self._irregular[pos].get(lemma, ())

    def _read_index(self, pos: Pos) -> dict[str, str]:
        lines = read_text(self.path / f"index.{pos}").splitlines()
        entries = dict(line.split(" ", 1) for line in lines if line[:1] != " " and " " in line)
        if not entries:
            raise self._malformed(f"index.{pos}", "no entries")
        return entries

    def _read_data(self, pos: Pos) -> bytes:
        # Some copies (the one on PyPI) have CRLF line ends, while the offsets count one byte a line end.
        return read_bytes(self.path / f"data.{pos}").replace(b"\r\n", b"\n")

    def _read_counts(self) -> dict[Pos, dict[str, dict[int, int]]]:
        """Counts above 0 by part of speech, lemma and byte offset of the synset."""
        counts: dict[Pos, dict[str, dict[int, int]]] = {pos: {} for pos in POS}
        text = read_text(self.path / "index.sense")
        found = 0
        for lemma, kind, offset, count in _SENSE_LINE.findall(text):
            found += 1
            if count != "0":
                counts[_SENSE_KEY_POS[kind]].setdefault(lemma, {})[int(offset)] = int(count)
        if not found or found != len(text.splitlines()):
            wrong = next((line for line in text.splitlines() if not _SENSE_LINE.match(line)), "")
            raise self._malformed("index.sense", f"the line {quoted(wrong)}")
        return counts

    def _read_exceptions(self, pos: Pos) -> dict[str, tuple[str, ...]]:
        path = self.path / f"{pos}.exc"
        if not os.path.isfile(path):
            return {}
        lines = [line.split() for line in read_text(path).splitlines()]
        return {form: tuple(bases) for form, *bases in filter(None, lines)}

    def _malformed(self, name: str, where: str) -> InputError:
        return InputError(f"{self.path / name} is not in WordNet's text format ({where}); fetch the folder afresh")


def find_wordnet(path: str | os.PathLike[str] | None = None) -> Path | None:
    """Look for a WordNet folder on this machine; nothing is fetched.

    Looked at in turn: `path`; the environment variable SPARSEQ_WORDNET; the cache folder of `sparseq.assets`;
    Debian's `/usr/share/wordnet`; `corpora/wordnet` in the data folders of NLTK.

    Returns:
        The first folder that holds the files, or None.

    Raises:
        InputError: `path` or SPARSEQ_WORDNET names a folder without the files.
    """
    for named in (path, os.environ.get("SPARSEQ_WORDNET")):
        if named:
            folder = expanded(named)
            _check_folder(folder)
            return folder
    nltk = [Path(part) for part in os.environ.get("NLTK_DATA", "").split(os.pathsep) if part]
    nltk += [Path(os.path.expanduser("~/nltk_data")), Path("/usr/share/nltk_data"), Path("/usr/local/share/nltk_data")]
    folders = [assets.wordnet_folder(), Path("/usr/share/wordnet"), *(base / "corpora" / "wordnet" for base in nltk)]
    return next((folder for folder in folders if not _missing(folder)), None)


@lru_cache(maxsize=2)
def _opened(path: Path) -> WordNet:
    return WordNet(path)


def load_wordnet(path: str | os.PathLike[str] | None = None, *, download: bool = False) -> WordNet:
    """Open the WordNet that `find_wordnet(path)` finds; kept open, so a second call costs nothing.

    Args:
        path: folder to use instead of looking for one.
        download: whether to fetch WordNet 3.0 into the cache when none is found.

    Raises:
        InputError: none was found and `download` is False, or the folder is not right.
    """
    found = find_wordnet(path)
    if found is None and download:
        found = assets.wordnet_dir()
    if found is None:
        raise InputError(
            "synonym augmentation needs WordNet and none was found: name its folder (the one with index.noun and "
            "data.noun) by path or by the environment variable SPARSEQ_WORDNET, install the system's wordnet-base "
            'package, or let it be fetched with python -c "import sparseq.assets; sparseq.assets.wordnet_dir()"'
        )
    return _opened(found.resolve())


def _missing(folder: Path) -> list[str]:
    return [name for name in FILES if not os.path.isfile(folder / name)]


def _check_folder(folder: Path) -> None:
    if not os.path.isdir(folder):
        raise InputError(f"there is no WordNet folder {folder}; it should hold {', '.join(FILES)}")
    if missing := _missing(folder):
        raise InputError(f"the WordNet folder {folder} lacks {', '.join(missing)}")


def _key(lemma: str) -> str:
    return lemma.lower().replace(" ", "_")


def _inverted(bases: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    forms: dict[str, tuple[str, ...]] = {}
    for form, lemmas in bases.items():
        for lemma in lemmas:
            forms[lemma] = (*forms.get(lemma, ()), form)
    return forms


def _parse_synset(fields: list[str], gloss: str) -> Synset:
    """Parse `offset lex_filenum ss_type w_cnt (word lex_id)* p_cnt (symbol offset pos src/tgt)* [f_cnt (+ f w)*]`."""
    size = int(fields[3], 16)
    texts = [fields[4 + 2 * i] for i in range(size)]
    at = 4 + 2 * size
    pointers = int(fields[at])
    links = [fields[at + 1 + 4 * i : at + 5 + 4 * i] for i in range(pointers)]
    instance = any(symbol == "@i" for symbol, *_ in links)
    heads = tuple(int(offset) for symbol, offset, *_ in links if symbol == "&") if fields[2] == "s" else ()
    pertains = tuple(
        (int(ends[:2], 16) - 1, int(offset), int(ends[2:], 16) - 1)
        for symbol, offset, _, ends in links
        if symbol == "\\" and fields[2] == "r" and ends != "0000"
    )
    at += 1 + 4 * pointers
    frames: list[set[int]] = [set() for _ in texts]
    if fields[2] == "v":
        for i in range(int(fields[at])):
            frame, number = int(fields[at + 2 + 3 * i]), int(fields[at + 3 + 3 * i], 16)
            for own in frames if number == 0 else [frames[number - 1]]:
                own.add(frame)
    words = []
    for text, own in zip(texts, frames, strict=True):
        lemma, _, marker = text.partition("(")
        words.append(Word(lemma.replace("_", " "), marker.rstrip(")"), frozenset(own)))
    return Synset(tuple(words), instance, heads, gloss, pertains)
