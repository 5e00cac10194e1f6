import json
from collections import Counter
from pathlib import Path

import pytest

from sparseq.augment import Augmented, SynonymAugmenter, WordNet, augment_dataset
from sparseq.errors import InputError

datasets = pytest.importorskip("datasets")


def test_originals_first_and_labels_kept(small: WordNet) -> None:
    text, label, number = datasets.Value("string"), datasets.ClassLabel(names=["bad", "good"]), datasets.Value("int64")
    features = datasets.Features({"text_a": text, "label": label, "id": number})
    texts = ["a big movie", "nothing here", "the story"]
    rows = {"text_a": texts, "label": [1, 0, 0], "id": [7, 8, 9]}
    original = datasets.Dataset.from_dict(rows, features=features)
    made = augment_dataset(original, SynonymAugmenter(small, rate=1.0)).dataset
    assert made.features == features
    assert made["text_a"][:] == [*texts, "a large film", "the tale"]
    assert made["label"][:] == [1, 0, 0, 1, 0]
    assert made["id"][:] == [7, 8, 9, 7, 9]


def test_pairs_and_float_labels(small: WordNet) -> None:
    rows = {"text_a": ["a movie", "here"], "text_b": ["the story", "a city"], "label": [2.5, 4.0]}
    made = augment_dataset(datasets.Dataset.from_dict(rows), SynonymAugmenter(small, rate=1.0, copies=3)).dataset
    assert made["text_a"][2:] == ["a film", "here"]
    assert made["text_b"][2:] == ["the tale", "a metropolis"]
    assert made["label"][2:] == [2.5, 4.0]


def test_both_texts_of_large_pairs_are_counted(small: WordNet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of which a sample is counted: what replaces the first texts' word stands in the second texts alone."""
    words = [f"w{i}" for i in range(20)] * 3
    first = [f"one {word} gorgeous x{word} two" for word in words] + ["it is here"] * 7000
    second = [text.replace("gorgeous", "beautiful") for text in first]
    monkeypatch.setattr("sparseq.augment.usage.MOST_CHARACTERS", sum(map(len, first + second)) * 2 // 3)
    pairs = datasets.Dataset.from_dict({"text_a": first, "text_b": second, "label": [0] * len(first)})
    made = augment_dataset(pairs, SynonymAugmenter(small), max_share=1.0).dataset
    assert made["text_a"][len(first) :] == second[:60] and made["text_b"][len(first) :] == first[:60]


def test_works_on_a_selection(small: WordNet) -> None:
    rows = {"text_a": ["a movie", "a story", "a city"], "label": [0, 1, 0]}
    picked = datasets.Dataset.from_dict(rows).select([2, 0])
    made = augment_dataset(picked, SynonymAugmenter(small)).dataset
    assert made["text_a"][:] == ["a city", "a movie", "a metropolis", "a film"]


def test_nothing_to_add(small: WordNet) -> None:
    empty = datasets.Dataset.from_dict({"text_a": ["it is not"], "label": [0]})
    made, stats = augment_dataset(empty, SynonymAugmenter(small, copies=2))
    assert made is empty
    assert (stats.copies, stats.words, stats.replaced, stats.unchanged_copies, stats.rate) == (0, 6, 0, 2, 0.0)


def changes(texts: list[str], made: Augmented, rows: list[int]) -> list[tuple[str, str]]:
    """Pairs of a word and what replaced it, of copies whose rows are given."""
    copies = made.dataset["text_a"][len(texts) :]
    pairs = zip((texts[row] for row in rows), copies, strict=True)
    return [(a, b) for old, new in pairs for a, b in zip(old.split(), new.split(), strict=True) if a != b]


@pytest.mark.parametrize("rate", [0.2, 0.5, 1.0])
def test_statistics_are_those_of_the_copies(small: WordNet, rate: float) -> None:
    texts = ["a big movie and a story of a city", "it is not", "the child was quickly in the city", "a movie"] * 5
    rows = {"text_a": texts, "label": list(range(20))}
    made = augment_dataset(datasets.Dataset.from_dict(rows), SynonymAugmenter(small, rate=rate), max_share=1.0)
    changed = changes(texts, made, made.dataset["label"][20:])
    assert made.stats.copies == len(made.dataset) - 20 == 15
    assert made.stats.words == sum(len(text.split()) for text in texts)
    assert made.stats.replaced == len(changed)
    assert made.stats.rate == len(changed) / made.stats.words
    assert made.stats.unchanged_copies == 5


def test_no_word_has_more_than_its_share(small: WordNet) -> None:
    words = ["movie", "story", "child", "city", "quickly", "awful", "big"]
    texts = ["movie"] * 400 + [f"the {word}" for word in words for _ in range(60)]
    rows = {"text_a": texts, "label": list(range(len(texts)))}
    made = augment_dataset(datasets.Dataset.from_dict(rows), SynonymAugmenter(small), max_share=0.25)
    changed = changes(texts, made, made.dataset["label"][len(texts) :])
    for side in (0, 1):
        most = Counter(pair[side] for pair in changed).most_common(1)[0][1]
        assert most <= 0.25 * len(changed) < 120
    free = augment_dataset(datasets.Dataset.from_dict(rows), SynonymAugmenter(small), max_share=1.0)
    assert Counter(changes(texts, free, free.dataset["label"][len(texts) :]))["movie", "film"] == 460
    again = augment_dataset(datasets.Dataset.from_dict(rows), SynonymAugmenter(small), max_share=0.25)
    assert again.stats == made.stats and again.dataset["text_a"][:] == made.dataset["text_a"][:]


@pytest.mark.parametrize(("rate", "reached"), [(0.1, 0.1), (0.2, 0.2), (0.4, 0.4), (0.8, 0.5)])
def test_rows_with_many_candidates_make_up_for_those_without(small: WordNet, rate: float, reached: float) -> None:
    """Half the words are in rows with nothing to replace, so that the others have twice the rate."""
    texts = ["movie . story . city . child . quickly . big"] * 100 + ["it is not what we are"] * 100
    rows = {"text_a": texts, "label": list(range(200))}
    made = augment_dataset(datasets.Dataset.from_dict(rows), SynonymAugmenter(small, rate=rate), max_share=1.0)
    assert made.stats.copies == made.stats.unchanged_copies == 100
    assert made.stats.rate == pytest.approx(reached, abs=0.02)


def test_no_row_has_more_than_twice_the_rate(small: WordNet) -> None:
    texts = ["movie . story . city . child . quickly . big"] * 100 + ["it is not what we are"] * 900
    rows = {"text_a": texts, "label": list(range(1000))}
    made = augment_dataset(datasets.Dataset.from_dict(rows), SynonymAugmenter(small, rate=0.25), max_share=1.0)
    assert made.stats.replaced == 100 * 3


def test_labels_of_the_dataset_are_heeded(small: WordNet) -> None:
    """As classes where they are whole numbers, and not where they are scores."""
    places = [f"w{i}" for i in range(20)]
    texts = ["it is here"] * 7000 + [f"one {p} {w} x{p} two" for w in ("gorgeous", "beautiful") for p in places]
    for low, kept in ((0, False), (1, True), (0.0, True)):
        labels = [type(low)(i % 2) for i in range(7000)] + [type(low)(1)] * 20 + [low] * 20
        made = augment_dataset(datasets.Dataset.from_dict({"text_a": texts, "label": labels}), SynonymAugmenter(small))
        assert ("one w0 beautiful xw0 two" in made.dataset["text_a"][len(texts) :]) is kept


@pytest.mark.parametrize("share", [0.0, 1.1])
def test_bad_share(small: WordNet, share: float) -> None:
    with pytest.raises(InputError, match="largest share of one word"):
        augment_dataset(datasets.Dataset.from_dict({"text_a": ["x"]}), SynonymAugmenter(small), max_share=share)


def test_missing_column(small: WordNet) -> None:
    with pytest.raises(InputError, match=r"no column text_a; its columns are \['sentence'\]"):
        augment_dataset(datasets.Dataset.from_dict({"sentence": ["x"]}), SynonymAugmenter(small))


def test_the_benchmark_says_what_was_reached(wndb: Path, tmp_path: Path) -> None:
    from bench.studies import augmentation

    folder = tmp_path / "glue" / "SST-2"
    folder.mkdir(parents=True)
    rows = [f"the film of {number} is here \t{number % 2}" for number in range(60)]
    for name in ("train", "dev"):
        (folder / f"{name}.tsv").write_text("\n".join(["sentence\tlabel", *rows]) + "\n")
    options = ["--data-dir", str(tmp_path / "glue"), "--wordnet", str(wndb), "--rates", "0.1", "--smallest"]
    assert augmentation.main([*options, "--out", str(tmp_path / "out")]) == 0
    (path,) = (tmp_path / "out").glob("augmentation-*.json")
    (row,) = json.loads(path.read_text())["rows"]
    stats = row["stats"]
    assert stats["words"] == 6 * 60 and 0 < stats["replaced"] == stats["rate"] * stats["words"]
    assert row["cells"]["replaced, %"] == f"{100 * stats['rate']:.2f}" and row["seconds"] > 0
