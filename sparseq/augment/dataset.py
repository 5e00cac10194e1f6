"""Augmented copies of a whole dataset."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from sparseq.augment.lexicon import Synonym
from sparseq.augment.synonyms import Plan, Site, SynonymAugmenter, replaced
from sparseq.augment.tokens import split
from sparseq.augment.usage import WordUsage
from sparseq.errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset

MAX_SHARE = 0.05
# A word may always be used this often, so that small datasets are not left without copies.
_ALWAYS = 10

_Choice = tuple[Site, Synonym]


@dataclass(frozen=True)
class AugmentationStats:
    """What came of an augmentation.

    Attributes:
        copies: rows that were added.
        words: words of all copies that were asked for, each row's as many times as there should be copies of it.
        replaced: how many of them were replaced.
        unchanged_copies: copies that were not added, as no word could be replaced or the same copy was there.
    """

    copies: int
    words: int
    replaced: int
    unchanged_copies: int

    @property
    def rate(self) -> float:
        """Share of the words that was replaced, to compare with the augmenter's `rate`."""
        return self.replaced / self.words if self.words else 0.0


class Augmented(NamedTuple):
    """A dataset with its copies, and what came of making them."""

    dataset: "Dataset"
    stats: AugmentationStats


class _Copy(NamedTuple):
    """A copy to make: of which row, and a plan for each of its texts."""

    row: int
    plans: tuple[Plan, ...]


def augment_dataset(dataset: "Dataset", augmenter: SynonymAugmenter, *, max_share: float = MAX_SHARE) -> Augmented:
    """Append augmented copies to a dataset: the original rows first, then the copies, in the rows' order.

    A dataset of 20,000 words or more says itself which synonyms are common, and which words make a phrase or a title
    (`WordUsage`). So a copy depends on the whole dataset; it is the same for the same dataset, settings and seed.

    Args:
        dataset: with a column `text_a`, optionally `text_b` (both texts of a pair get replacements); a copy keeps
            its row's `label` and any other column.
        augmenter: draws by the row's position in `dataset`.
        max_share: no word is replaced, and none replaces others, in more than this share of all replacements, or ten
            times if that is more. Above 0 and at most 1.

    Returns:
        A dataset with the same features, and the statistics. A row without a replaceable word gets no copy.

    Raises:
        InputError: no column `text_a`, or `max_share` out of range.
    """
    from datasets import concatenate_datasets

    if "text_a" not in dataset.column_names:
        raise InputError(f"the dataset to augment has no column text_a; its columns are {dataset.column_names}")
    if not 0 < max_share <= 1:
        raise InputError(f"the largest share of one word must be above 0 and at most 1, not {max_share}")
    parts = [name for name in ("text_a", "text_b") if name in dataset.column_names]
    texts = list(zip(*(dataset[name][:] for name in parts), strict=True))
    copies, words = _plan(texts, augmenter)
    chosen = _bounded(copies, max_share, augmenter.seed)
    rows = [copy.row for copy, choices in zip(copies, chosen, strict=True) if choices]
    stats = AugmentationStats(
        copies=len(rows),
        words=words,
        replaced=sum(len(part) for choices in chosen for part in choices),
        unchanged_copies=len(texts) * augmenter.copies - len(rows),
    )
    if not rows:
        return Augmented(dataset, stats)
    made: dict[str, list[str]] = {name: [] for name in parts}
    for copy, choices in zip(copies, chosen, strict=True):
        for name, text, part in zip(parts, texts[copy.row], choices, strict=False):
            made[name].append(replaced(text, part))
    added = type(dataset).from_dict({**dataset.select(rows).to_dict(), **made}, features=dataset.features)
    return Augmented(concatenate_datasets([dataset, added]), stats)


def _plan(texts: Sequence[tuple[str, ...]], augmenter: SynonymAugmenter) -> tuple[list[_Copy], int]:
    """A plan for each copy of a row with a replaceable word, and the number of words of all copies."""
    usage = WordUsage([text for row in texts for text in row], augmenter.stop_words)
    planned: list[_Copy] = []
    words = 0
    for index, row in enumerate(texts):
        tokens = [split(text) for text in row]
        sites = [augmenter.sites(text, own, usage) for text, own in zip(row, tokens, strict=True)]
        words += augmenter.copies * sum(map(len, tokens))
        if any(sites):
            for copy in range(augmenter.copies):
                drawn = zip(sites, tokens, ("", "b"), strict=False)
                plans = (augmenter.plan(own, len(some), index, copy, part) for own, some, part in drawn)
                planned.append(_Copy(index, tuple(plans)))
    return planned, words


def _bounded(copies: Sequence[_Copy], max_share: float, seed: int) -> list[tuple[tuple[_Choice, ...], ...]]:
    """The replacements of each copy, a tuple a text; none (an empty tuple) for a copy without any.

    What is refused to a frequent word makes the total smaller, and so the bound: repeated until the bound holds.
    """
    order = random.Random(f"{seed}/order").sample(range(len(copies)), len(copies))
    bound = sum(plan.number for copy in copies for plan in copy.plans)
    while True:
        chosen = _choose(copies, order, bound)
        total = sum(len(part) for choices in chosen for part in choices)
        allowed = max(_ALWAYS, int(max_share * total))
        if allowed >= bound:
            return chosen
        bound = allowed


def _choose(copies: Sequence[_Copy], order: Sequence[int], bound: int) -> list[tuple[tuple[_Choice, ...], ...]]:
    """Follows the plans, no word more than `bound` times: a site that may not be used makes room for the next one."""
    uses: tuple[Counter[str], Counter[str]] = Counter(), Counter()  # of words replaced, and of replacements
    chosen: list[tuple[tuple[_Choice, ...], ...]] = [()] * len(copies)
    several = len({copy.row for copy in copies}) < len(copies)
    seen: set[tuple[int, tuple[tuple[tuple[int, str], ...], ...]]] = set()
    for number in order:
        copy = copies[number]
        taken = tuple(_follow(plan, bound, uses) for plan in copy.plans)
        if several and any(taken):
            key = copy.row, tuple(tuple(sorted((s.token.start, y.form) for s, y in part)) for part in taken)
            if key in seen:
                for site, synonym in (choice for part in taken for choice in part):
                    uses[0][site.lemma] -= 1
                    uses[1][synonym.lemma] -= 1
                continue
            seen.add(key)
        if any(taken):
            chosen[number] = taken
    return chosen


def _follow(plan: Plan, bound: int, uses: tuple[Counter[str], Counter[str]]) -> tuple[_Choice, ...]:
    """Takes as many sites as the plan has replacements, each with the first synonym that is not used up yet."""
    taken: list[_Choice] = []
    for site in plan.sites:
        if len(taken) == plan.number:
            break
        if uses[0][site.lemma] >= bound:
            continue
        synonym = next((option for option in site.options if uses[1][option.lemma] < bound), None)
        if synonym is not None:
            taken.append((site, synonym))
            uses[0][site.lemma] += 1
            uses[1][synonym.lemma] += 1
    return tuple(taken)
