"""A small WordNet, written in the true text format."""

from dataclasses import dataclass
from pathlib import Path

_TYPES = {"noun": "n", "verb": "v", "adj": "a", "adv": "r"}
_KEY_TYPES = {"noun": 1, "verb": 2, "adj": 3, "adv": 4}
_LICENCE = "  1 This stands where WordNet has its licence: lines that start with two spaces.  \n"
# Stands where the offset of a satellite will, which is known when the satellite is written.
_LATER = "?" * 8


@dataclass
class Meaning:
    """A synset to write: part of speech, words (markers as "asleep(p)"), tagged uses a word, verb frames.

    head: of a satellite adjective, the first word of its head. source: of an adverb, its adjective.
    """

    pos: str
    words: list[str]
    uses: list[int]
    frames: tuple[int, ...] = (8,)
    instance: bool = False
    head: str = ""
    source: str = ""
    gloss: str = "a gloss"


MEANINGS = [
    Meaning("noun", ["movie", "film", "motion_picture"], [26, 38, 2]),
    Meaning("noun", ["film"], [5]),
    Meaning("noun", ["story", "tale"], [60, 9]),
    Meaning("noun", ["child", "kid", "minor"], [100, 12, 8]),
    Meaning("noun", ["school"], [80]),
    Meaning("noun", ["high_school"], [9]),
    Meaning("noun", ["city", "metropolis"], [70, 10]),
    Meaning("noun", ["Paris", "City_of_Light"], [5, 0], instance=True),
    Meaning("noun", ["Shanghai"], [2], instance=True),
    Meaning("noun", ["noon", "midday"], [20, 9]),
    Meaning("noun", ["man"], [90]),
    Meaning("noun", ["setting", "surroundings"], [9, 9]),
    Meaning("noun", ["motion"], [30]),
    Meaning("noun", ["picture"], [30]),
    Meaning("noun", ["beryllium", "be"], [1, 0]),
    Meaning("noun", ["answer", "response"], [30, 12]),
    Meaning("verb", ["be", "exist"], [9000, 40]),
    Meaning("verb", ["buy", "purchase"], [50, 20]),
    Meaning("verb", ["hate", "detest"], [20, 6]),
    Meaning("verb", ["stop", "cease"], [40, 12], (1, 2)),
    Meaning("verb", ["rebuy"], [0]),
    Meaning("verb", ["unstop"], [0]),
    Meaning("verb", ["answer", "reply"], [30, 14], (1, 2)),
    Meaning("adj", ["big", "large"], [60, 50]),
    Meaning("adj", ["awake(p)", "alert"], [9, 0]),
    Meaning("adj", ["honest", "upright"], [9, 7]),
    Meaning("adj", ["eager", "keen"], [9, 7]),
    Meaning("adj", ["beautiful"], [80]),
    Meaning("adj", ["gorgeous"], [9], head="beautiful", gloss='dazzlingly beautiful; "a gorgeous day"'),
    Meaning("adj", ["stunning"], [9], head="beautiful", gloss="causing great wonder"),
    Meaning("adj", ["ordinal"], [1]),
    Meaning("adj", ["fourth"], [9], head="ordinal"),
    Meaning("adj", ["ninth"], [9], head="ordinal"),
    Meaning("adj", ["engaging"], [3]),
    Meaning("adj", ["charming"], [9], head="engaging", gloss="pleasing"),
    Meaning("verb", ["engage"], [30]),
    Meaning("adj", ["instructive"], [9]),
    Meaning("adj", ["preachy"], [3], head="instructive", gloss="marked by tedious moralization"),
    Meaning("adj", ["warm"], [60]),
    Meaning("adj", ["tepid"], [5], head="warm", gloss="moderately warm"),
    Meaning("adj", ["great"], [60]),
    Meaning("adj", ["greatest", "superior"], [12, 8]),
    Meaning("adj", ["funny", "amusing"], [7, 4]),
    Meaning("adj", ["funny", "strange"], [8, 30]),
    Meaning("adj", ["difficult", "hard"], [40, 30]),
    Meaning("adv", ["gorgeously"], [0], source="gorgeous"),
    Meaning("adv", ["beautifully"], [9], source="beautiful"),
    Meaning("adv", ["surely", "certainly"], [60, 50]),
    Meaning("adv", ["quickly", "rapidly"], [30, 15]),
    Meaning("adv", ["not", "non"], [900, 1]),
]
EXCEPTIONS = {
    "noun": "children child\n",
    "verb": "bought buy\nstopped stop\nstopping stop\nwas be\nwent go\ngone go\nshown show\n",
    "adj": "",
    "adv": "",
}


def write_wndb(folder: Path, meanings: list[Meaning], line_end: str = "\n") -> Path:
    """Write `index.*`, `data.*`, `*.exc` and `index.sense`. Offsets count one byte a line end, as in real copies."""
    folder.mkdir(parents=True, exist_ok=True)
    sense_lines: list[str] = []
    places: dict[tuple[str, str], int] = {}  # of the first word of each synset
    for pos, kind in _TYPES.items():
        data = _LICENCE
        around: dict[str, list[int]] = {}  # the satellites of each head
        senses: dict[str, list[tuple[int, int]]] = {}
        for meaning in (m for m in meanings if m.pos == pos):
            offset = len(data)
            places.setdefault((pos, meaning.words[0]), offset)
            words = " ".join(f"{word} 0" for word in meaning.words)
            pointers = "001 @i 00000000 n 0000" if meaning.instance else "000"
            if meaning.head:
                kind_here, pointers = "s", f"001 & {places['adj', meaning.head]:08d} a 0000"
                around[meaning.head].append(offset)
            elif meaning.source:
                kind_here, pointers = "r", f"001 \\ {places['adj', meaning.source]:08d} a 0101"
            else:
                kind_here = kind
                own = [other for other in meanings if pos == "adj" and other.head == meaning.words[0]]
                if own:
                    pointers = f"{len(own):03d}" + f" & {_LATER} a 0000" * len(own)
                    around[meaning.words[0]] = []
            frames = "".join(f" + {frame:02d} 00" for frame in meaning.frames)
            tail = f" {len(meaning.frames):02d}{frames}" if pos == "verb" else ""
            data += (
                f"{offset:08d} 00 {kind_here} {len(meaning.words):02x} {words} {pointers}{tail} | {meaning.gloss}  \n"
            )
            for word, uses in zip(meaning.words, meaning.uses, strict=True):
                senses.setdefault(word.partition("(")[0].lower(), []).append((uses, offset))
        for offset in (offset for own in around.values() for offset in own):
            data = data.replace(_LATER, f"{offset:08d}", 1)
        index = _LICENCE
        for lemma, found in sorted(senses.items()):
            found.sort(reverse=True)
            offsets = " ".join(f"{offset:08d}" for _, offset in found)
            some = sum(uses > 0 for uses, _ in found)
            index += f"{lemma} {kind} {len(found)} 1 @ {len(found)} {some} {offsets}  \n"
            for number, (uses, offset) in enumerate(found, start=1):
                sense_lines.append(f"{lemma}%{_KEY_TYPES[pos]}:00:{number:02d}:: {offset:08d} {number} {uses}\n")
        for name, text in ((f"data.{pos}", data), (f"index.{pos}", index), (f"{pos}.exc", EXCEPTIONS[pos])):
            (folder / name).write_bytes(text.replace("\n", line_end).encode())
    (folder / "index.sense").write_bytes("".join(sense_lines).replace("\n", line_end).encode())
    return folder
