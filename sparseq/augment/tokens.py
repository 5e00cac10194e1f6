"""Words of a text, their places and their capitals."""

import re
from itertools import pairwise
from typing import NamedTuple

# A word with its apostrophes and hyphens is one token ("don't", "n't", "half-baked"), so no part of it is replaced.
_TOKEN = re.compile(r"'?[^\W_]+(?:['\u2019`-]+[^\W_]+)*")
_PIECE = re.compile(_TOKEN.pattern + r"|[^\w\s]+")
_SENTENCE_START = re.compile(r"(?:^|[.!?:][\"'\u2019\u201d)]*\s+)[\"'`\u2018\u201c]*$")


class Token(NamedTuple):
    """A word at `text[start:end]`; `word` is in lower case, as are its neighbours `before` and `after`.

    A neighbour is "" where there is none or punctuation stands between.
    """

    start: int
    end: int
    text: str
    word: str
    before: str = ""
    after: str = ""


def split(text: str) -> list[Token]:
    """The words of a text in order."""
    found = [(*match.span(), match[0]) for match in _TOKEN.finditer(text)]
    words = [one.lower() for *_, one in found]
    apart = [not text[one[1] : other[0]].isspace() for one, other in pairwise(found)]
    befores = ["", *("" if far else word for word, far in zip(words, apart, strict=False))]
    afters = [*("" if far else word for word, far in zip(words[1:], apart, strict=False)), ""]
    return [
        Token(start, end, one, word, before, after)
        for (start, end, one), word, before, after in zip(found, words, befores, afters, strict=False)
    ]


def pieces(text: str) -> list[str]:
    """The words of a text, in lower case, and what punctuation stands between them."""
    return _PIECE.findall(text.lower())


def is_name(text: str, tokens: list[Token], i: int) -> bool:
    """Whether the capitals of token `i` are more than those of a sentence's first word or of a shouted text."""
    token = tokens[i]
    if token.text == token.word:
        return False
    if token.text.isupper() and text.isupper():
        return False
    titled = token.after != "" and tokens[i + 1].text[0].isupper() and token.after != "i"  # "Big Fat Liar is ..."
    return titled or not token.text[1:].islower() or _SENTENCE_START.search(text[: token.start]) is None


def cased_like(original: str, word: str) -> str:
    """A lower-case word with the capitals of another."""
    if original.isupper():
        return word.upper()
    return word.capitalize() if original[0].isupper() else word
