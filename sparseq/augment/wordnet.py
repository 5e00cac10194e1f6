"""WordNet from its own text files (the WNDB format), read lazily.

Source of the format: the manual pages wndb(5WN) and senseidx(5WN) of WordNet 3.0. The files read are, for each part of
speech, `index.*` (lemma -> its synsets, most frequent first), `data.*` (the synsets, addressed by byte offset), `*.exc`
(irregular inflections), and `index.sense` (how often people tagged each sense in running text).

`cntlist.rev` has those counts too, but is not read: in release 3.0 its sense numbers are those of an older release, and
its sense keys lack 83 of the tagged senses.
"""

import os
import re
from functools import cached_property
from pathlib import Path

from sparseq.augment.wndb import POS, Pos, Synset, check_folder, parse_synset
from sparseq.errors import InputError
from sparseq.reading import read_bytes, read_text
from sparseq_kernels.untrusted import quoted

_SENSE_KEY_POS: dict[str, Pos] = {"1": "noun", "2": "verb", "3": "adj", "4": "adv", "5": "adj"}
# A line `lemma%ss_type:lex_filenum:lex_id:head_word:head_id synset_offset sense_number tag_cnt`.
_SENSE_LINE = re.compile(r"^(\S+?)%([1-5]):\S* (\d{8}) \d+ (\d+)\s*$", re.MULTILINE)


class WordNet:
    """The synsets of a WNDB folder.

    Only the indexes are read at first (about 0.3 s); a synset is parsed when it is first used.

    Args:
        path: folder with `index.*`, `data.*` and `index.sense`; `*.exc` are used if present.

    Raises:
        InputError: no such folder, a missing file, or a file that is not in the format.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        check_folder(self.path)
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
        return type(self), (self.path,)  # another process reads the files itself instead of receiving 30 MB

    def lemmas(self, pos: Pos) -> tuple[str, ...]:
        """All lemmas of a part of speech in lower case, with spaces between words, in alphabetical order."""
        return tuple(lemma.replace("_", " ") for lemma in self._index[pos])

    def offsets(self, lemma: str, pos: Pos) -> tuple[int, ...]:
        """Byte offsets of the synsets of `lemma`, most frequent sense first; empty if WordNet lacks it."""
        known = self._offsets.get((lemma, pos))
        if known is None:
            known = self._offsets[lemma, pos] = self._find_offsets(lemma, pos)
        return known

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
        tagged = self._counts[pos].get(_key(lemma))
        offsets = self.offsets(lemma, pos)
        return tuple([tagged.get(offset, 0) for offset in offsets]) if tagged else (0,) * len(offsets)

    def synset(self, pos: Pos, offset: int) -> Synset:
        """The synset at `offset` of `data.<pos>`, as returned by `offsets`."""
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
            return parse_synset(fields, gloss.strip())
        except (IndexError, ValueError) as error:
            raise self._malformed(f"data.{pos}", f"byte {offset}") from error

    def glosses(self) -> list[str]:
        """The definitions and examples of all synsets."""
        return [
            line.partition(b" | ")[2].decode("utf-8", "replace")
            for pos in POS
            for line in self._data[pos].splitlines()
            if line[:1] != b" "
        ]

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
            multiword: whether to include synonyms of more than one word ("motion picture").

        Returns:
            Base forms in WordNet's own case; empty if WordNet lacks the lemma or it has no synonyms.

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
        """Base forms of an irregular `form` ("went" -> "go") by `<pos>.exc`; empty if it is not listed."""
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
        # Some copies (the one on PyPI) have CRLF line ends, but the offsets count one byte per line end.
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


def _key(lemma: str) -> str:
    return lemma.lower().replace(" ", "_")


def _inverted(bases: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    forms: dict[str, tuple[str, ...]] = {}
    for form, lemmas in bases.items():
        for lemma in lemmas:
            forms[lemma] = (*forms.get(lemma, ()), form)
    return forms
