"""Data augmentation by WordNet synonyms, usable with or without distillation."""

from sparseq.augment.dataset import augment_dataset
from sparseq.augment.synonyms import SynonymAugmenter
from sparseq.augment.wordnet import WordNet, find_wordnet, load_wordnet

__all__ = ["SynonymAugmenter", "WordNet", "augment_dataset", "find_wordnet", "load_wordnet"]
