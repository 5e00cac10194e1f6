"""A model, a tokenizer and data small enough to train in a second."""

import csv
import gc
import os
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import summation
import torch
from fresh import TRAINING, FreshProcesses

# A shell ignores it for what it starts in the background, and so would every process that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Nothing in a test is large enough for a second thread, and two processes of tests share two cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
if os.environ.get(summation.SWITCH):
    summation.install()

GOOD = ["good", "great", "fine", "lovely", "superb", "happy"]
BAD = ["bad", "poor", "awful", "sad", "dull", "boring"]
OTHER = [
    "the",
    "a",
    "film",
    "story",
    "actor",
    "plot",
    "was",
    "is",
    "and",
    "very",
    "it",
    "with",
    "scene",
    "music",
    "one",
]


@pytest.fixture(scope="module", autouse=True)
def _nothing_old_is_collected() -> None:
    """Leaves what was imported and made so far out of every collection to come: accelerate collects after each run, and
    half a second went there, more than into the training."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test reads or fills the user's cache unless it asks for it."""
    monkeypatch.setenv("SPARSEQ_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    yield


@pytest.fixture(scope="session")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FreshProcesses]:
    """Runs code as in a new process, at a tenth of its cost."""
    found = FreshProcesses(tmp_path_factory.mktemp("fresh"))
    yield found
    found.close()


@pytest.fixture(scope="session")
def fresh_training(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FreshProcesses]:
    """The same for code that trains, which takes six seconds to import."""
    found = FreshProcesses(tmp_path_factory.mktemp("fresh_training"), TRAINING)
    yield found
    found.close()


@pytest.fixture(scope="session")
def tiny_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> object:
    """A BERT tokenizer that knows the tiny data's words."""
    from transformers import BertTokenizerFast

    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *GOOD, *BAD, *OTHER]
    path = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
    path.write_text("\n".join(vocabulary) + "\n")
    return BertTokenizerFast(str(path), model_max_length=64)


@pytest.fixture(scope="session")
def make_model(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: object) -> Callable[..., Path]:
    """Makes a folder with a random BERT and the tiny tokenizer; keyword arguments change the configuration."""
    from transformers import BertConfig, BertForSequenceClassification

    def make(name: str = "model", seed: int = 1, **changes: object) -> Path:
        settings = {
            "vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
            "intermediate_size": 64, "max_position_embeddings": 64, "num_labels": 2,
        }  # fmt: skip
        torch.manual_seed(seed)
        model = BertForSequenceClassification(BertConfig(**{**settings, **changes}))
        folder = tmp_path_factory.mktemp(name)
        model.save_pretrained(folder)
        tiny_tokenizer.save_pretrained(folder)  # type: ignore[attr-defined]
        return folder

    return make


@pytest.fixture(scope="session")
def tiny_model_dir(make_model: Callable[..., Path]) -> Path:
    """A random two-layer BERT, hidden size 32."""
    return make_model("student")


@pytest.fixture(scope="session")
def tiny_teacher_dir(make_model: Callable[..., Path]) -> Path:
    """A random four-layer BERT with a head for two labels."""
    return make_model("teacher", seed=2, num_hidden_layers=4)


def write_rows(path: Path, rows: list[dict[str, object]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def sentences(count: int, seed: int) -> list[dict[str, object]]:
    """Rows of `sentence`, `label`: the label says whether the sentence holds a good word or a bad one."""
    draw = random.Random(seed)
    rows: list[dict[str, object]] = []
    for _ in range(count):
        label = draw.randrange(2)
        words = [draw.choice(OTHER) for _ in range(draw.randrange(2, 12))]
        words.insert(draw.randrange(len(words) + 1), draw.choice(GOOD if label else BAD))
        rows.append({"sentence": " ".join(words), "label": label})
    return rows


@pytest.fixture(scope="session")
def tiny_csv(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(train.csv, validation.csv) with columns sentence, label: 66 and 40 rows."""
    folder = tmp_path_factory.mktemp("data")
    return write_rows(folder / "train.csv", sentences(66, 0)), write_rows(folder / "validation.csv", sentences(40, 1))


@pytest.fixture(scope="session")
def tiny_regression_csv(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same with pairs of sentences (sentence1, sentence2) and a real number to predict."""
    folder = tmp_path_factory.mktemp("regression")
    paths = []
    for name, count in (("train", 66), ("validation", 40)):
        first, second = sentences(count, 2), sentences(count, 3)
        rows: list[dict[str, object]] = [
            {"sentence1": a["sentence"], "sentence2": b["sentence"], "label": 5.0 if a["label"] == b["label"] else 0.5}
            for a, b in zip(first, second, strict=True)
        ]
        paths.append(write_rows(folder / f"{name}.csv", rows))
    return paths[0], paths[1]


@pytest.fixture
def run_flags(
    tiny_model_dir: Path, tiny_teacher_dir: Path, tiny_csv: tuple[Path, Path], tmp_path: Path
) -> dict[str, Any]:
    """Flags of a run that would work."""
    return {
        "--model": tiny_model_dir,
        "--teacher": tiny_teacher_dir,
        "--train-file": tiny_csv[0],
        "--validation-file": tiny_csv[1],
        "--max-length": 32,
        "--batch-size": 8,
        "--epochs": 1,
        "--out": tmp_path / "out",
    }
