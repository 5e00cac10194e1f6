"""Data augmentation by WordNet synonyms, usable with or without distillation."""

from sparseq.augment.dataset import AugmentationStats, Augmented, augment_dataset
from sparseq.augment.finding import find_wordnet, load_wordnet, wordnet_dir
from sparseq.augment.synonyms import SynonymAugmenter
from sparseq.augment.wordnet import WordNet

__all__ = [
    "AugmentationStats",
    "Augmented",
    "SynonymAugmenter",
    "WordNet",
    "augment_dataset",
    "find_wordnet",
    "load_wordnet",
    "wordnet_dir",
]
