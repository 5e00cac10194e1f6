"""Tokenizer files altered by anyone: a tokenizer or a sentence, and never their code."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from altered import alterations, changed, nodes

from sparseq.errors import InputError
from sparseq.models import load_model, load_tokenizer

NAMES = ("tokenizer.json", "tokenizer_config.json")
SECONDS = 10


def outcome(folder: Path) -> None:
    start = time.monotonic()
    try:
        load_tokenizer(folder)
    except InputError as error:
        assert "tokenizer" in str(error) and "\n" not in str(error)
    assert time.monotonic() - start < SECONDS


@pytest.fixture
def folder(tiny_model_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model_dir, tmp_path / "copy"))


@pytest.mark.parametrize("name", NAMES)
def test_every_node(name: str, folder: Path) -> None:
    """Each deleted, and altered in a few of the ways there are."""
    tree = json.loads((folder / name).read_text())
    for number, (path, value) in enumerate(nodes(tree)):
        if path[:2] == ("model", "vocab") and len(path) > 2:
            continue
        others = [other for _, other in alterations(value)]
        for altered in (
            changed(tree, path, None, delete=True),
            *(changed(tree, path, o) for o in others[number % 9 :: 9]),
        ):
            (folder / name).write_text(json.dumps(altered))
            outcome(folder)


@pytest.mark.parametrize("name", [*NAMES, "special_tokens_map.json", "vocab.txt"])
@pytest.mark.parametrize(
    "content", [b"", b"[", b"[" * 100_000, b"\xff\xfe", b"{}", b"null"], ids=lambda text: str(text[:4])
)
def test_whole_files(name: str, content: bytes, folder: Path) -> None:
    (folder / name).write_bytes(content)
    outcome(folder)


@pytest.mark.parametrize("read", [load_tokenizer, lambda folder: load_model(folder, num_labels=2)])
def test_code_in_a_folder_is_never_offered_to_be_run(
    read: Callable[[Path], object], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers asks on the terminal, and waits for an answer, unless it was told no."""
    monkeypatch.setattr("builtins.input", lambda *prompt: pytest.fail("asked whether to run code of the folder"))
    (folder / "theirs.py").write_text("raise SystemExit('run')\n")
    for name, kind in (("config.json", "Config"), ("tokenizer_config.json", "Tokenizer")):
        values = json.loads((folder / name).read_text())
        values |= {"auto_map": {f"Auto{kind}": "theirs.Theirs"}, "model_type": "theirs", "tokenizer_class": "Theirs"}
        (folder / name).write_text(json.dumps(values))
    with pytest.raises(InputError, match=r"theirs|Theirs|trust_remote_code|custom code"):
        read(folder)
