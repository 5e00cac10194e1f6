"""Whatever a path names, reading it ends soon: with the content, or with one sentence."""

import json
import os
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sparseq import reading
from sparseq.augment import WordNet
from sparseq.augment.wndb import FILES
from sparseq.errors import InputError
from sparseq.tasks import Task
from sparseq.tasks.files import open_glue_tsv, open_table
from sparseq.train import Recipe, RunResult
from sparseq.train.durable import read_sealed
from sparseq.train.folder import FINGERPRINT, MARKER, METRICS, RunFolder
from sparseq_kernels import untrusted

SECONDS = 20.0


def within_seconds(call: Callable[[], Any]) -> Any:
    """The call's result or error; a failure where it has not ended in time."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(call())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(SECONDS)
    assert outcome, f"still not done after {SECONDS:g} s"
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


def put_fifo(path: Path) -> None:
    os.mkfifo(path)


def put_socket(path: Path) -> None:
    # The path of a socket may have no more than about 100 characters.
    here = os.getcwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(path.name)
    finally:
        os.chdir(here)


def put_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def put_folder(path: Path) -> None:
    path.mkdir()


def put_nothing(path: Path) -> None:
    pass


def put_latin1(path: Path) -> None:
    path.write_bytes(b"caf\xe9 = 1\n")


def put_huge(path: Path) -> None:
    with path.open("wb") as file:  # sparse: it takes no room on the disk
        file.truncate(reading.LARGE + 1)


ODD = (put_fifo, put_socket, put_device, put_folder, put_nothing, put_latin1, put_huge)


def run_folder(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def wordnet(path: Path) -> WordNet:
    for name in FILES:
        if name != path.name:
            (path.parent / name).write_text("a a 1\n")
    return WordNet(path.parent)


READERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "recipe.toml": ("r.toml", Recipe.from_file),
    "recipe.yaml": ("r.yaml", Recipe.from_file),
    "train file, csv": ("rows.csv", open_table),
    "train file, tsv": ("rows.tsv", open_table),
    "train file, jsonl": ("rows.jsonl", open_table),
    "GLUE's file": ("dev.tsv", open_glue_tsv),
    "metrics.json": (METRICS, lambda path: RunFolder(path.parent).metrics()),
    "checkpoint's marker": (MARKER, read_sealed),
    "run's fingerprint": (FINGERPRINT, read_sealed),
    "WordNet's index": ("index.noun", wordnet),
    "WordNet's counts": ("index.sense", wordnet),
}


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: odd.__name__)
@pytest.mark.parametrize("reader", READERS)
def test_anything_but_a_text_file_is_refused_at_once(reader: str, odd: Callable[[Path], None], tmp_path: Path) -> None:
    name, read = READERS[reader]
    path = run_folder(tmp_path / name)
    odd(path)
    with pytest.raises(ValueError) as caught:  # InputError, but for what only programs read
        within_seconds(lambda: read(path))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


def test_reads_what_a_regular_file_holds(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbfgr\xc3\xbc\xc3\x9fe\r\n")
    assert reading.read_text(tmp_path / "a") == "grüße\r\n"
    (tmp_path / "link").symlink_to("a")
    assert reading.read_bytes(tmp_path / "link", 100) == (tmp_path / "a").read_bytes()
    with pytest.raises(InputError, match="holds more than 0 KiB"):
        reading.read_bytes(tmp_path / "a", 5)
    assert b"MemTotal" in reading.read_bytes("/proc/meminfo")  # a size of 0, and content all the same


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[" * 200_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ('{"a": 1, "a": 2}', "'a' stands twice"),
        ('{"a": "\\ud800"}', "half of a surrogate pair"),
        ('{"' + "x" * 100_000 + '": 1, ' + '"' + "x" * 100_000 + '": 2}', "stands twice"),
        ("1" * 10_000, "digits"),
        ("{", "cannot read .* as JSON"),
        ("", "cannot read .* as JSON"),
    ],
    ids=lambda value: value[:12],
)
def test_json_of_every_kind(text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match=sentence) as caught:
        reading.read_json(tmp_path / "a.json")
    assert len(str(caught.value)) < 600


def bomb(levels: int) -> list[Any]:
    value: list[Any] = ["lol"]
    for _ in range(levels):
        value = [value] * 9
    return value


@pytest.mark.parametrize(
    "value",
    [bomb(40), "x" * 10**7, 10**20_000, -(10**20_000), {"a" * 10**6: bomb(9)}, [10**5_000], b"\xff" * 10**6],
    ids=["bomb", "text", "integer", "negative", "dict", "integer in a list", "bytes"],
)
def test_a_message_quotes_a_bounded_part_of_a_value(value: Any) -> None:
    assert len(within_seconds(lambda: untrusted.quoted(value))) <= untrusted.QUOTED


def test_small_values_are_quoted_whole_and_without_control_characters() -> None:
    assert untrusted.quoted("stars") == "'stars'" and untrusted.quoted(0.5) == "0.5" and untrusted.quoted([1]) == "[1]"
    assert untrusted.quoted("\x1b[31m\u202e") == r"'\x1b[31m\u202e'"


@dataclass
class Example:
    name: str
    size: int
    share: float
    words: tuple[str, ...]
    span: tuple[float, float] | None
    scores: dict[str, float]
    anything: Any
    sure: bool = False
    more: dict[str, str] = field(default_factory=dict)


GOOD = {
    "name": "a", "size": 3, "share": 1, "words": ["x"], "span": [0, 1.5], "scores": {"f1": 0.5}, "anything": [None],
}  # fmt: skip


def test_a_dataclass_of_its_own_json() -> None:
    made = reading.build(Example, json.loads(json.dumps(GOOD)))
    assert made == Example("a", 3, 1, ("x",), (0, 1.5), {"f1": 0.5}, [None])
    assert reading.build(Example, {**GOOD, "span": None, "sure": True}).sure is True


@pytest.mark.parametrize(
    "changes",
    [
        {"name": 3}, {"name": None}, {"size": 1.5}, {"size": True}, {"size": "3"}, {"share": "1"}, {"share": None},
        {"words": "x"}, {"words": [1]}, {"words": [["x"]]}, {"span": [1]}, {"span": [1, 2, 3]}, {"span": 1},
        {"scores": []}, {"scores": {"f1": "0.5"}}, {"sure": 1}, {"unknown": 1},
    ],
    ids=str,
)  # fmt: skip
def test_a_value_of_another_type_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        reading.build(Example, {**GOOD, **changes})


TASK = Task("custom", ("text",), num_labels=2, label_names=("no", "yes")).as_dict()
RESULT = {
    "task": "custom", "methods": ["qat"], "seed": 0, "score": 0.5, "metrics": {"accuracy": 0.5},
    "score_before_packing": 0.5, "sparsity": None, "sparsity_reached": 0.0, "pattern": None, "bits": 8,
    "parameters": 10, "nonzero": 10, "paper_bytes": 10, "stored_bytes": 20, "rows": {"train": 5}, "steps": 1,
    "seconds": 1.0, "versions": {"torch": "2"}, "task_definition": TASK,
}  # fmt: skip
WRONG = (None, True, 10**400, -1.5, "x\x1b[31m", [], ["x"], {}, {"a": [1]})


@pytest.mark.parametrize("name", RESULT)
@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_metrics_of_other_types_are_refused_or_the_same_type(name: str, wrong: Any, tmp_path: Path) -> None:
    (tmp_path / METRICS).write_text(json.dumps({**RESULT, name: wrong}))
    try:
        found = getattr(RunResult.from_folder(tmp_path), name)
    except InputError as error:
        assert "\n" not in str(error) and len(str(error)) < 600
    else:
        assert type(found) is type(wrong) or isinstance(wrong, list | int)


@pytest.mark.parametrize("name", TASK)
@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_task_definitions_of_other_types(name: str, wrong: Any) -> None:
    try:
        task = Task.from_dict({**TASK, name: wrong})
    except InputError as error:
        assert "\n" not in str(error) and len(str(error)) < 600
    else:
        assert task.num_labels >= 1 and len(task.columns) in (1, 2)


@pytest.mark.parametrize("text", ['{"a": NaN}', '{"a": -Infinity}', '{"a": 1e999}', '{"a": ' + "9" * 21 + "}"])
def test_strict_json_is_of_numbers_that_any_reader_takes(text: str) -> None:
    """Metrics may hold NaN, and rows of data long numbers: they are read by the same function, not strictly."""
    reading.parse_json(text)
    with pytest.raises(ValueError):
        reading.parse_json(text, strict=True)
    with pytest.raises(InputError, match="the text cannot be read as JSON"):
        reading.strict_json(text.encode(), "the text")


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(
    "text", ["[" * 200_000, '{"a": 1, "a": 2}', r'{"a": "\ud800"}', r'{"\udc00": 1}', "", b"\xff", b"[\x00"]
)
def test_what_is_no_json_for_anyone(text: str | bytes, strict: bool) -> None:
    with pytest.raises(ValueError):
        reading.parse_json(text, strict=strict)


@pytest.mark.parametrize("text", ["\x1b[31m\n\u202ex", "\x1b" * 5000, "a" * 5000, ""])
def test_an_error_in_a_sentence(text: str) -> None:
    said = reading.brief(ValueError(text))
    assert said and said.isprintable() and len(said) <= 200
