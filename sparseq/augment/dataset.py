"""Augmented copies of a whole dataset."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sparseq.augment.synonyms import Plan, Site, SynonymAugmenter, replaced
from sparseq.augment.thesaurus import DIGITS
from sparseq.augment.tokens import split
from sparseq.augment.usage import Option, WordUsage
from sparseq.errors import InputError
from sparseq.extras import naming_extra

if TYPE_CHECKING:
    from datasets import Dataset

MAX_SHARE = 0.05
# A word may always be used this often, so that small datasets get copies too.
_ALWAYS = 10
# The share of words replaced in one row is at most this multiple of the rate.
_MOST_OF_RATE = 2.0
_HALVINGS = 20
# The bound is lowered by a little more than necessary, which saves passes.
_FASTER = 0.98

_Choice = tuple[Site, Option]


@dataclass(frozen=True)
class AugmentationStats:
    """How much of a dataset was augmented.

    Attributes:
        copies: rows that were added.
        words: words of the dataset's texts times the requested copies.
        replaced: how many of them were replaced.
        unchanged_copies: copies that were not added, because no word could be replaced or an equal copy exists.
    """

    copies: int
    words: int
    replaced: int
    unchanged_copies: int

    @property
    def rate(self) -> float:
        """The fraction of words that was replaced, to compare with the augmenter's `rate`."""
        return self.replaced / self.words if self.words else 0.0

    def as_dict(self) -> dict[str, float]:
        """The attributes and the rate, by name."""
        return {**asdict(self), "rate": self.rate}


class Augmented(NamedTuple):
    """A dataset with its copies, and statistics of the augmentation."""

    dataset: "Dataset"
    stats: AugmentationStats


class _Copy(NamedTuple):
    """A copy to make: its row, and a plan for each of its texts."""

    row: int
    plans: tuple[Plan, ...]


@naming_extra("train")
def augment_dataset(dataset: "Dataset", augmenter: SynonymAugmenter, *, max_share: float = MAX_SHARE) -> Augmented:
    """Appends augmented copies to a dataset: the original rows first, then the copies, in the order of the rows.

    If a dataset has 20,000 words or more, its own texts determine which synonyms are common, and which words make a
    phrase or a title (`WordUsage`). So a copy depends on the whole dataset. Copies are the same for the same dataset,
    settings, seed and WordNet. Weights are rounded to six decimal digits before they are compared or used for drawing,
    because rounding errors differ between processors. Rows with many replaceable words get up to twice the augmenter's
    rate, so that the average over all rows comes closer to it.

    Args:
        dataset: with a column `text_a`, optionally `text_b` (words are replaced in both texts of a pair); a copy keeps
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
    copies, words = _plan(texts, _classes(dataset), augmenter)
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


def _classes(dataset: "Dataset") -> list[int] | None:
    """The label of each row if labels are classes."""
    feature = dataset.features.get("label")
    if feature is None or not str(getattr(feature, "dtype", "")).startswith(("int", "uint")):
        return None
    labels: list[int] = dataset.with_format("numpy")["label"][:]
    return labels


class _Row(NamedTuple):
    """A row with replaceable words: its number, the number of words of each of its texts, and their sites."""

    number: int
    words: tuple[int, ...]
    sites: tuple[list[Site], ...]


def _plan(
    texts: Sequence[tuple[str, ...]], labels: Sequence[int] | None, augmenter: SynonymAugmenter
) -> tuple[list[_Copy], int]:
    """A plan for each copy of a row with a replaceable word, and the number of words of all copies."""
    usage = WordUsage(
        [text for row in texts for text in row],
        augmenter.stop_words,
        None if labels is None else [label for label, row in zip(labels, texts, strict=True) for _ in row],
        augmenter.wordnet.glosses,
        len(texts[0]) if texts else 1,
    )
    rows: list[_Row] = []
    words = 0
    for number, row in enumerate(texts):
        tokens = [split(text) for text in row]
        sites = tuple(augmenter.sites(text, own, usage) for text, own in zip(row, tokens, strict=True))
        words += sum(map(len, tokens))
        if any(sites):
            rows.append(_Row(number, tuple(map(len, tokens)), sites))
    rate = _row_rate(rows, words, augmenter.rate)
    planned = []
    for found in rows:
        for copy in range(augmenter.copies):
            drawn = zip(found.sites, found.words, ("", "b"), strict=False)
            plans = (augmenter.plan(some, own, found.number, copy, part, rate) for some, own, part in drawn)
            planned.append(_Copy(found.number, tuple(plans)))
    return planned, augmenter.copies * words


def _row_rate(rows: Sequence[_Row], words: int, rate: float) -> float:
    """The rate per row for which all `words` together reach `rate`, but at most twice that.

    So rows with many replaceable words make up for those with few.
    """
    counts = np.array([(own, len(sites)) for row in rows for own, sites in zip(row.words, row.sites, strict=True)])
    if not len(counts):
        return rate
    own, sites = counts[:, 0], counts[:, 1]
    least, most = rate, min(1.0, _MOST_OF_RATE * rate)
    for _ in range(_HALVINGS):
        middle = (least + most) / 2
        if round(float(np.minimum(np.maximum(1, middle * own), sites).sum()), DIGITS) < rate * words:
            least = middle
        else:
            most = middle
    return most


def _bounded(copies: Sequence[_Copy], max_share: float, seed: int) -> list[tuple[tuple[_Choice, ...], ...]]:
    """The replacements of each copy, one tuple per text; an empty tuple for a copy without any.

    Refusing replacements of frequent words reduces the total and so the bound; this is repeated until the bound holds.
    """
    order = random.Random(f"{seed}/order").sample(range(len(copies)), len(copies))
    bound = sum(plan.number for copy in copies for plan in copy.plans)
    while True:
        chosen = _choose(copies, order, bound)
        total = sum(len(part) for choices in chosen for part in choices)
        allowed = max(_ALWAYS, int(max_share * total))
        if allowed >= bound:
            return chosen
        bound = max(_ALWAYS, int(_FASTER * allowed))


def _choose(copies: Sequence[_Copy], order: Sequence[int], bound: int) -> list[tuple[tuple[_Choice, ...], ...]]:
    """Follows the plans, with no word more than `bound` times; the next site replaces one that may not be used."""
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
    """Takes as many sites as the plan has replacements, each with the first synonym that may still be used."""
    taken: list[_Choice] = []
    for site in plan.sites:
        if len(taken) == plan.number:
            break
        if uses[0][site.lemma] >= bound:
            continue
        for option in site.options:
            if uses[1][option.lemma] < bound:
                taken.append((site, option))
                uses[0][site.lemma] += 1
                uses[1][option.lemma] += 1
                break
    return tuple(taken)
