"""The rows of a run: with their copies, tokenised, and for training with the teacher's logits."""

from dataclasses import dataclass, field

from datasets import Dataset

from sparseq.distill.batch import ALPHA
from sparseq.tasks.held_out import HELD_OUT

from .collate import with_teachers_inputs
from .copies import augmented
from .data import count_cut, tokenise
from .prepare import Prepared
from .progress import Reporter
from .recipe import Recipe
from .teacher import teacher_logits


@dataclass(frozen=True)
class Rows:
    """The rows of a run.

    texts: the training rows with their copies. tokens: the same, tokenised for the student. splits: the validation
    splits, tokenised. held_out: the held-out training rows, tokenised, if there are any. cut: the number of all texts
    that were longer than the recipe's `max_length`. augmentation: statistics of the copies, see `AugmentationStats`;
    empty without copies.
    """

    texts: Dataset
    tokens: Dataset
    splits: dict[str, Dataset]
    held_out: dict[str, Dataset]
    cut: int
    augmentation: dict[str, float] = field(default_factory=dict)

    def counts(self) -> dict[str, int]:
        """The number of rows of each split, by name; training with its copies."""
        return {
            "train": len(self.texts),
            **{name: len(part) for name, part in {**self.splits, **self.held_out}.items()},
        }


def tokenised_rows(recipe: Recipe, prepared: Prepared, reporter: Reporter) -> Rows:
    """Every row as text and as tokens, with the copies."""
    assert prepared.data.train is not None
    rows, validations = prepared.data.train, prepared.data.validations
    with reporter.phase("preparing data") as phase:
        told, augmentation, smaller = "", dict[str, float](), prepared.vocabulary
        copies = smaller.copies if smaller is not None else augmented(recipe, rows)
        if copies is not None:
            rows, stats = copies
            augmentation = stats.as_dict()
            told = f" ({stats.copies:,} of them copies)"
        reading = prepared.tokenizer, recipe.max_length
        tokens = tokenise(rows, *reading, prepared.student) if smaller is None else smaller.tokens
        splits = {name: tokenise(part, *reading, prepared.student) for name, part in validations.items()}
        held = {} if prepared.data.held_out is None else {HELD_OUT: prepared.data.held_out}
        held_out = {name: tokenise(part, *reading, prepared.student) for name, part in held.items()}
        scored = {**splits, **held_out}
        cut = count_cut(rows, tokens, *reading)
        cut += sum(count_cut(part, scored[name], *reading) for name, part in {**validations, **held}.items())
        phase.update(note=f"{len(rows):,} training rows{told}, {sum(map(len, splits.values())):,} to validate on")
    return Rows(rows, tokens, splits, held_out, cut, augmentation)


def training_rows(recipe: Recipe, prepared: Prepared, rows: Rows, reporter: Reporter) -> Dataset:
    """The tokenised training rows, with `teacher_logits` under kd, and with the inputs of a live teacher."""
    tokens = rows.tokens
    if prepared.teacher is None:
        return tokens
    if prepared.hidden is not None:
        theirs = tokenise(rows.texts, prepared.teacher_tokenizer, recipe.max_length, prepared.teacher)
        smaller = prepared.vocabulary
        tokens = with_teachers_inputs(tokens, theirs, prepared.teacher, None if smaller is None else smaller.kept)
    logits = teacher_logits(recipe, prepared, rows.texts, reporter)
    tokens = tokens.add_column("teacher_logits", logits.tolist())
    if recipe.augment_alpha is not None and recipe.augment_copies:
        assert prepared.data.train is not None
        own = len(prepared.data.train)  # copies come after the rows
        weights = [recipe.kd_alpha] * own + [recipe.augment_alpha] * (len(tokens) - own)
        tokens = tokens.add_column(ALPHA, weights)
    return tokens
