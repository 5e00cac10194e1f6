"""Rows held out of the training file: whole texts, no part of which is trained on, the same for every seed."""

import random
from pathlib import Path

import pytest
from datasets import Dataset

from sparseq.errors import InputError
from sparseq.tasks import load_data
from sparseq.tasks.held_out import hold_out

WORDS = ["film", "good", "bad", "a", "the", "very", "plot", "dull", "bright", "story"]


def sentences_and_phrases(seed: int = 0) -> Dataset:
    """Rows as SST-2 has them: sentences of 4 to 8 words, and phrases of each."""
    chance = random.Random(seed)
    texts = []
    for number in range(60):
        words = [*chance.choices(WORDS, k=chance.randint(4, 8)), f"w{number}"]
        texts.append(" ".join(words))
        for _ in range(4):
            start = chance.randrange(len(words))
            texts.append(" ".join(words[start : start + chance.randint(1, 3)]))
    chance.shuffle(texts)
    return Dataset.from_dict({"text_a": texts, "label": [chance.randrange(2) for _ in texts]})


def is_part(words: list[str], of: list[str]) -> bool:
    return any(of[i : i + len(words)] == words for i in range(len(of) - len(words) + 1))


def test_held_out_rows_are_whole_and_nothing_of_them_is_trained_on() -> None:
    rows = sentences_and_phrases()
    left, held = hold_out(rows, 10)
    assert len(held) == 10
    everything = [text.split() for text in rows["text_a"]]
    trained = [text.split() for text in left["text_a"]]
    for text in held["text_a"]:
        assert sum(is_part(text.split(), other) for other in everything) == 1  # in itself alone
        assert not any(is_part(words, text.split()) for words in trained)
    # Only parts of held-out rows are left out besides them.
    kept = sum(not any(is_part(words, text.split()) for text in held["text_a"]) for words in everything)
    assert len(left) == kept < len(rows) - 10


def test_spacing_and_case_do_not_hide_a_repeated_text() -> None:
    rows = Dataset.from_dict(
        {"text_a": ["a  b c", " B c", "d e", "bc", "a b", "f", "F "], "label": [0, 1, 0, 1, 0, 1, 0]}
    )
    left, held = hold_out(rows, 3)
    assert sorted(held["text_a"]) == ["a  b c", "bc", "d e"]
    assert left["text_a"][:] == ["f", "F "]


def test_both_texts_of_a_pair_count() -> None:
    rows = Dataset.from_dict(
        {"text_a": ["a", "a", "a", "b"], "text_b": ["x", "y", "x", "x"], "label": [0.5, 1.5, float("nan"), 2.0]}
    )
    left, held = hold_out(rows, 2)
    assert set(zip(held["text_a"], held["text_b"], strict=True)) == {("a", "y"), ("b", "x")}
    assert len(left) == 2  # the two equal ones, neither of which can be held out


def test_unlabelled_rows_are_not_scored_on() -> None:
    rows = Dataset.from_dict({"text_a": ["a b", "c d", "e f"], "label": [-100, 1, 0]})
    _, held = hold_out(rows, 2)
    assert sorted(held["label"]) == [0, 1]
    with pytest.raises(InputError, match="only 2 labelled"):
        hold_out(rows, 3)


def test_no_row_left_is_refused() -> None:
    rows = Dataset.from_dict({"text_a": ["a b", "c d"], "label": [0, 1]})
    with pytest.raises(InputError, match="leaves no training row"):
        hold_out(rows, 2)


def test_the_choice_is_the_same_for_every_seed_and_subset(tmp_path: Path) -> None:
    rows = sentences_and_phrases()
    path = tmp_path / "train.tsv"
    path.write_text("sentence\tlabel\n" + "".join(f"{r['text_a']}\t{r['label']}\n" for r in rows), encoding="utf-8")
    files = {"train_file": path, "validation_file": path, "text_columns": ("sentence",)}
    one = load_data("custom", **files, held_out_rows=10, seed=0, max_train_rows=50)  # type: ignore[arg-type]
    other = load_data("custom", **files, held_out_rows=10, seed=1, max_train_rows=60)  # type: ignore[arg-type]
    assert one.held_out is not None and other.held_out is not None
    assert one.held_out["text_a"][:] == other.held_out["text_a"][:]
    assert one.train is not None and other.train is not None
    assert (len(one.train), len(other.train)) == (50, 60)
    assert not set(one.train["text_a"]) & set(one.held_out["text_a"])
