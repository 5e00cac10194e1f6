"""How some texts use their words: which are common, and which stand in a fixed phrase or a title."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from sparseq.augment.contexts import Contexts
from sparseq.augment.tokens import Token, pieces

# Of fewer words than this no frequency is worth trusting.
_FEWEST_WORDS = 20_000
# A replacement needs this share of all words, and of the uses of the word that it replaces.
_SHARE_OF_WORDS = 5e-6
_SHARE_OF_WORD = 0.05
# Two words are a phrase when they met this often, in different surroundings, and this share of the rarer one's uses.
_FEWEST_MEETINGS = 3
_SHARE_OF_MEETINGS = 0.2
# Two words are alike when the cosine of their neighbours is this or more.
_LIKENESS = 0.12
# More characters than this are not counted: every so manieth text is, then.
_MOST_CHARACTERS = 8_000_000


@dataclass
class _Meeting:
    """How often two words met, and whether in varied surroundings: a text that is repeated makes no phrase."""

    count: int = 0
    before: str = ""
    after: str = ""
    varied: bool = False

    def add(self, before: str, after: str) -> None:
        self.count += 1
        self.varied |= bool(self.before and before and before != self.before)
        self.varied |= bool(self.after and after and after != self.after)
        self.before = self.before or before
        self.after = self.after or after


class WordUsage:
    """Counts of the words (lower case) of some texts, of all of them together, and of pairs of neighbours.

    Args:
        texts: the texts; of more than eight million characters an even sample of them is counted.
        ignored: words of which no phrase is made, as function words are.
    """

    def __init__(self, texts: Sequence[str], ignored: frozenset[str] = frozenset()) -> None:
        self.texts = texts[:: 1 + sum(map(len, texts)) // _MOST_CHARACTERS]
        self.counts: Counter[str] = Counter()
        self._meetings: dict[tuple[str, str], _Meeting] = {}
        self._likeness: dict[tuple[str, str], bool] = {}
        for text in self.texts:
            words = pieces(text)
            self.counts.update(words)
            for i in range(len(words) - 1):
                one, other = words[i], words[i + 1]
                if one in ignored or other in ignored or not (one.isalpha() and other.isalpha()):
                    continue
                meeting = self._meetings.setdefault((one, other), _Meeting())
                meeting.add(words[i - 1] if i else "", words[i + 2] if i + 2 < len(words) else "")
        self.words = sum(count for word, count in self.counts.items() if any(map(str.isalnum, word)))

    @property
    def enough(self) -> bool:
        """Whether the texts are long enough to tell a common word from a rare one."""
        return self.words >= _FEWEST_WORDS

    def common(self, word: str, replaced: str) -> bool:
        """Whether the texts use `word`, at least five times in a million words and 5 % as often as `replaced`."""
        needed = max(1.0, _SHARE_OF_WORDS * self.words, _SHARE_OF_WORD * self.counts[replaced])
        return self.counts[word] >= needed

    def alike(self, word: str, replaced: str) -> bool:
        """Whether the two stand in the same places of the texts."""
        if (word, replaced) not in self._likeness:
            self._likeness[word, replaced] = self._contexts.likeness(word, replaced) >= _LIKENESS
        return self._likeness[word, replaced]

    @cached_property
    def _contexts(self) -> Contexts:
        return Contexts(self.texts, self.counts)

    def phrase(self, token: Token) -> bool:
        """Whether a word and one beside it make a fixed phrase or title of the texts ("shanghai noon")."""
        return any(
            self._meet_often(*pair)
            for pair in ((token.before, token.word), (token.word, token.after))
            if pair in self._meetings
        )

    def _meet_often(self, one: str, other: str) -> bool:
        meeting = self._meetings[one, other]
        rarer = min(self.counts[one], self.counts[other])
        return meeting.varied and meeting.count >= max(_FEWEST_MEETINGS, _SHARE_OF_MEETINGS * rarer)
