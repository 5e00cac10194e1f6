"""The WNDB format of WordNet's text files: the files, and the lines of `data.*`.

Source: the manual page wndb(5WN) of WordNet 3.0.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sparseq.errors import InputError

Pos = Literal["noun", "verb", "adj", "adv"]
POS: tuple[Pos, ...] = ("noun", "verb", "adj", "adv")
FILES: tuple[str, ...] = (*(f"{kind}.{pos}" for kind in ("index", "data") for pos in POS), "index.sense")


@dataclass(frozen=True)
class Word:
    """One word of a synset.

    Attributes:
        lemma: as written in WordNet, with spaces for underscores ("motion picture", "Paris").
        marker: the positions of an adjective: "a" before its noun only, "p" in the predicate only, "ip" after its noun
            only, "" anywhere.
        frames: numbers of the sentence frames of this verb in this sense; empty for other parts of speech.
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
        satellite: whether it is an adjective that stands around another ("gorgeous" around "beautiful").
        similar: offsets of similar adjectives: of a satellite its heads, of a head its satellites; else empty.
        gloss: the definition and examples.
        pertains: pairs of a word's number (from 0) and the offset and word number of the adjective that this adverb
            comes from.
    """

    words: tuple[Word, ...]
    instance: bool
    satellite: bool = False
    similar: tuple[int, ...] = ()
    gloss: str = ""
    pertains: tuple[tuple[int, int, int], ...] = ()


def missing_files(folder: Path) -> list[str]:
    """The names in `FILES` that are missing from a folder."""
    return [name for name in FILES if not os.path.isfile(folder / name)]


def check_folder(folder: Path) -> None:
    """Raises InputError if a folder is missing or lacks files, naming them."""
    if not os.path.isdir(folder):
        raise InputError(f"there is no WordNet folder {folder}; it should hold {', '.join(FILES)}")
    if missing := missing_files(folder):
        raise InputError(f"the WordNet folder {folder} lacks {', '.join(missing)}")


def parse_synset(fields: list[str], gloss: str) -> Synset:
    """Parse `offset lex_filenum ss_type w_cnt (word lex_id)* p_cnt (symbol offset pos src/tgt)* [f_cnt (+ f w)*]`."""
    size = int(fields[3], 16)
    at = 5 + 2 * size
    end = at + 4 * int(fields[at - 1])
    symbols = fields[at:end:4]
    similar = tuple(int(fields[at + 4 * i + 1]) for i, symbol in enumerate(symbols) if symbol == "&")
    pertains = []
    for i, symbol in enumerate(symbols):
        ends = fields[at + 4 * i + 3]
        if symbol == "\\" and fields[2] == "r" and ends != "0000":
            pertains.append((int(ends[:2], 16) - 1, int(fields[at + 4 * i + 1]), int(ends[2:], 16) - 1))
    frames = _frames(fields[end:], size) if fields[2] == "v" else [frozenset()] * size
    words = []
    for text, own in zip(fields[4 : 4 + 2 * size : 2], frames, strict=True):
        lemma, _, marker = text.partition("(")
        words.append(Word(lemma.replace("_", " "), marker.rstrip(")"), own))
    return Synset(tuple(words), "@i" in symbols, fields[2] == "s", similar, gloss, tuple(pertains))


def _frames(fields: list[str], size: int) -> list[frozenset[int]]:
    """The frames of this many verbs, from `f_cnt (+ frame word)*`; word number 0 stands for all of them."""
    frames: list[set[int]] = [set() for _ in range(size)]
    for i in range(int(fields[0])):
        frame, number = int(fields[2 + 3 * i]), int(fields[3 + 3 * i], 16)
        for own in frames if number == 0 else [frames[number - 1]]:
            own.add(frame)
    return [frozenset(own) for own in frames]
