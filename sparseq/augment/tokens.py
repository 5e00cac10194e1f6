"""The words of a text, their positions and their capitals."""

import re
from collections.abc import Sequence
from typing import NamedTuple, overload

# A word with its apostrophes and hyphens is one token ("don't", "n't", "half-baked"), so no part of it is replaced.
_TOKEN = re.compile(r"'?[^\W_]+(?:['\u2019`-]+[^\W_]+)*")
_PIECE = re.compile(_TOKEN.pattern + r"|[^\w\s]+")
_SENTENCE_START = re.compile(r"(?:^|[.!?:][\"'\u2019\u201d)]*\s+)[\"'`\u2018\u201c]*$")


class Token(NamedTuple):
    """A word at `text[start:end]`; `word` is in lower case, and so are its neighbours `before` and `after`.

    A neighbour is "" if there is none or if punctuation is in between.
    """

    start: int
    end: int
    text: str
    word: str
    before: str = ""
    after: str = ""


class Tokens(Sequence[Token]):
    """The words of a text in order; a `Token` is created when it is accessed.

    Attributes:
        words: all of them in lower case.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._matches = list(_TOKEN.finditer(text))
        self.words = [match[0].lower() for match in self._matches]

    def __len__(self) -> int:
        return len(self.words)

    @overload
    def __getitem__(self, i: int) -> Token: ...
    @overload
    def __getitem__(self, i: slice) -> list[Token]: ...
    def __getitem__(self, i: int | slice) -> Token | list[Token]:
        if isinstance(i, slice):
            return [self[j] for j in range(*i.indices(len(self)))]
        i = range(len(self.words))[i]
        match = self._matches[i]
        before = self.words[i - 1] if i and self._adjoin(i - 1) else ""
        after = self.words[i + 1] if i + 1 < len(self.words) and self._adjoin(i) else ""
        return Token(match.start(), match.end(), match[0], self.words[i], before, after)

    def _adjoin(self, i: int) -> bool:
        """Whether only spaces are between a word and the next."""
        return self._text[self._matches[i].end() : self._matches[i + 1].start()].isspace()


def split(text: str) -> Tokens:
    """The words of a text in order."""
    return Tokens(text)


def pieces(text: str) -> list[str]:
    """The words of a text, in lower case, and the punctuation between them."""
    return _PIECE.findall(text.lower())


def has_name_capitals(text: str, tokens: Sequence[Token], i: int) -> bool:
    """Whether token `i` has the capitals of a name.

    The first word of a sentence, and texts in capitals, do not count.
    """
    token = tokens[i]
    if token.text == token.word:
        return False
    if token.text.isupper() and text.isupper():
        return False
    titled = token.after != "" and tokens[i + 1].text[0].isupper() and token.after != "i"  # "Big Fat Liar is ..."
    return titled or not token.text[1:].islower() or _SENTENCE_START.search(text[: token.start]) is None


def cased_like(original: str, word: str) -> str:
    """A lower-case word with the capitals of another word."""
    if original.isupper():
        return word.upper()
    return word.capitalize() if original[0].isupper() else word
