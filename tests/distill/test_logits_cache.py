"""The cache of the teacher's logits, and what it does with altered files."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sparseq.distill import (
    TeacherLogits,
)
from sparseq.errors import MachineError

TEACHER = torch.tensor([[1.0, 1.0, -2.0], [4.0, 0.0, 1.0]], dtype=torch.float64)


def test_logits_are_computed_once_and_survive_damage(tmp_path: Path) -> None:
    calls = []

    def compute() -> torch.Tensor:
        calls.append(1)
        return TEACHER

    cache = TeacherLogits(tmp_path / "logits", ("rows", "teacher"))
    for _ in range(2):
        found = cache.get(2, compute)
        assert found.dtype == torch.float32 and torch.equal(found, TEACHER.float())
    assert len(calls) == 1
    assert [path.suffix for path in cache.folder.iterdir()] == [".safetensors"]
    assert cache.load(3) is None
    assert TeacherLogits(cache.folder, ("rows", "other teacher")).load(2) is None


def _negate(path: Path) -> None:
    held = load_file(path)
    save_file({**held, "logits": -held["logits"]}, path)


def _another_digest(path: Path) -> None:
    save_file({**load_file(path), "sha256": torch.zeros(32, dtype=torch.uint8)}, path)


def _from_another_key(path: Path) -> None:
    other = TeacherLogits(path.parent, ("rows", "other teacher"))
    other.get(2, lambda: -TEACHER)
    os.replace(other.path, path)


def _a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


HARMS: dict[str, Callable[[Path], Any]] = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-4]),
    "emptied": lambda path: path.write_bytes(b""),
    "negated": _negate,
    "another digest": _another_digest,
    "no digest": lambda path: save_file({"logits": -TEACHER.float()}, path),
    "another dtype": lambda path: save_file({**load_file(path), "logits": TEACHER}, path),
    "another key's": _from_another_key,
    "a folder": _a_folder,
    "a pipe": _a_pipe,
}


@pytest.mark.parametrize("harm", HARMS)
def test_altered_logits_are_computed_anew(harm: str, tmp_path: Path) -> None:
    cache = TeacherLogits(tmp_path / "logits", ("rows", "teacher"))
    cache.get(2, lambda: TEACHER)
    HARMS[harm](cache.path)
    assert cache.load(2) is None
    said: list[str] = []
    assert torch.equal(cache.get(2, lambda: TEACHER, said.append), TEACHER.float())
    assert bool(said) == (harm == "a folder")
    assert harm == "a folder" or cache.load(2) is not None


def test_logits_that_cannot_be_kept(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = TeacherLogits(tmp_path / "file" / "logits", ("rows", "teacher"))
    said: list[str] = []
    assert torch.equal(cache.get(2, lambda: TEACHER, said.append), TEACHER.float())
    [sentence] = said
    assert str(tmp_path / "file") in sentence and "are not kept for another run" in sentence
    with pytest.raises(MachineError, match="cannot write"):
        cache.get(2, lambda: TEACHER)
