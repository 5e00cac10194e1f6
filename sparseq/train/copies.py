"""Augmented copies of the training rows, by the recipe."""

from typing import TYPE_CHECKING

from datasets import Dataset

from .recipe import Recipe

if TYPE_CHECKING:
    from sparseq.augment import Augmented


def augmented(recipe: Recipe, rows: Dataset) -> "Augmented | None":
    """The rows with their copies, by the recipe, and their statistics; None if it asks for no copies.

    Raises InputError if no WordNet is found.
    """
    if not recipe.augment_copies:
        return None
    from sparseq.augment import SynonymAugmenter, augment_dataset
    from sparseq.augment.finding import load_wordnet

    augmenter = SynonymAugmenter(
        load_wordnet(recipe.wordnet),
        rate=recipe.augment_rate,
        copies=recipe.augment_copies,
        pos_aware=recipe.pos_aware,
        protected=recipe.protected_words,
        seed=recipe.seed,
    )
    return augment_dataset(rows, augmenter)
