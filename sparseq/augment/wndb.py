"""The WNDB format of WordNet's text files: which files there are, and what a line of `data.*` says.

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


def missing_files(folder: Path) -> list[str]:
    return [name for name in FILES if not os.path.isfile(folder / name)]


def check_folder(folder: Path) -> None:
    if not os.path.isdir(folder):
        raise InputError(f"there is no WordNet folder {folder}; it should hold {', '.join(FILES)}")
    if missing := missing_files(folder):
        raise InputError(f"the WordNet folder {folder} lacks {', '.join(missing)}")


def parse_synset(fields: list[str], gloss: str) -> Synset:
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
