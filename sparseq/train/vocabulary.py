"""The student's smaller vocabulary: the tokens that occur in the training rows, and those that any text needs."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

from datasets import Dataset
from torch import nn

from sparseq.errors import InputError
from sparseq.models.vocabulary import keep_rows, kept_tokens, smaller_tokenizer

from .copies import augmented
from .data import tokenise
from .recipe import Recipe

if TYPE_CHECKING:
    from sparseq.augment import Augmented


@dataclass(frozen=True)
class SmallerVocabulary:
    """A student's vocabulary after tokens were removed from it.

    tokenizer: the smaller one. kept: the former id of each token, ascending. before: the number of tokens there were.
    tokens: the training rows, tokenised. copies: the rows with their copies; None without copies.
    """

    tokenizer: Any
    kept: Sequence[int]
    before: int
    tokens: Dataset
    copies: "Augmented | None"

    def sizes(self) -> dict[str, int]:
        """The numbers of tokens `before` and `after`."""
        return {"before": self.before, "after": len(self.kept)}


def keep_seen(recipe: Recipe, student: nn.Module, tokenizer: Any, rows: Dataset) -> SmallerVocabulary:
    """Removes the tokens that no training row has, from the student in place and from a new tokenizer.

    rows: the training rows without copies, which are made here. The student is not converted yet. Each row is tokenised
    again and compared: its tokens are the same as before, under other ids. Raises InputError for a tokenizer or model
    that cannot be made smaller.
    """
    name = str(recipe.model)
    copies = augmented(recipe, rows)
    texts = rows if copies is None else copies[0]
    before: int = student.config.vocab_size  # type: ignore[union-attr, assignment]
    old = tokenise(texts, tokenizer, recipe.max_length, student)["input_ids"][:]
    kept = kept_tokens(tokenizer, student, set(chain.from_iterable(old)), name)
    smaller = smaller_tokenizer(tokenizer, kept, name)
    keep_rows(student, kept, name)
    tokens = tokenise(texts, smaller, recipe.max_length, student)
    for number, (own, other) in enumerate(zip(tokens["input_ids"], old, strict=True), 1):
        if [kept[one] for one in own] != other:
            raise InputError(
                f"the tokenizer of {name} splits training row {number} differently once unseen tokens are removed: "
                "leave out --vocabulary seen"
            )
    return SmallerVocabulary(smaller, kept, before, tokens, copies)
