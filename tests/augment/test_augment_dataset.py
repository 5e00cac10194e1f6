import pytest

from sparseq.augment import SynonymAugmenter, WordNet, augment_dataset
from sparseq.errors import InputError

datasets = pytest.importorskip("datasets")


def test_originals_first_and_labels_kept(small: WordNet) -> None:
    text, label, number = datasets.Value("string"), datasets.ClassLabel(names=["bad", "good"]), datasets.Value("int64")
    features = datasets.Features({"text_a": text, "label": label, "id": number})
    texts = ["a big movie", "nothing here", "the story"]
    rows = {"text_a": texts, "label": [1, 0, 0], "id": [7, 8, 9]}
    original = datasets.Dataset.from_dict(rows, features=features)
    made = augment_dataset(original, SynonymAugmenter(small, rate=1.0))
    assert made.features == features
    assert made["text_a"][:] == [*texts, "a large film", "the tale"]
    assert made["label"][:] == [1, 0, 0, 1, 0]
    assert made["id"][:] == [7, 8, 9, 7, 9]


def test_pairs_and_float_labels(small: WordNet) -> None:
    rows = {"text_a": ["a movie", "here"], "text_b": ["the story", "a city"], "label": [2.5, 4.0]}
    made = augment_dataset(datasets.Dataset.from_dict(rows), SynonymAugmenter(small, rate=1.0, copies=3))
    assert made["text_a"][2:] == ["a film", "here"]
    assert made["text_b"][2:] == ["the tale", "a metropolis"]
    assert made["label"][2:] == [2.5, 4.0]


def test_works_on_a_selection(small: WordNet) -> None:
    rows = {"text_a": ["a movie", "a story", "a city"], "label": [0, 1, 0]}
    picked = datasets.Dataset.from_dict(rows).select([2, 0])
    made = augment_dataset(picked, SynonymAugmenter(small))
    assert made["text_a"][:] == ["a city", "a movie", "a metropolis", "a film"]


def test_nothing_to_add(small: WordNet) -> None:
    empty = datasets.Dataset.from_dict({"text_a": ["it is not"], "label": [0]})
    assert augment_dataset(empty, SynonymAugmenter(small)) is empty


def test_missing_column(small: WordNet) -> None:
    with pytest.raises(InputError, match=r"no column text_a; its columns are \['sentence'\]"):
        augment_dataset(datasets.Dataset.from_dict({"sentence": ["x"]}), SynonymAugmenter(small))
