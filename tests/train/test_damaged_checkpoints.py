"""A checkpoint counts if it is the very one that was written; otherwise an older one does, or the run begins anew."""

import os
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from broken_runs import Listening, break_off

from sparseq.checkpoint import read_metadata
from sparseq.errors import InputError
from sparseq.train import Recipe, RunResult, compress, durable
from sparseq.train.folder import CHECKPOINTS, FINGERPRINT, MARKER, Marker, RunFolder

FILES = (
    "complete",
    "model.safetensors",
    "optimizer.pt",
    "scheduler.pt",
    "rng_state.pth",
    "trainer_state.json",
    "training.csv",
)


def whole_numbers(result: RunResult) -> tuple[Any, ...]:
    return result.metrics, result.steps, read_metadata(result.out)["sha256"]


@pytest.fixture(scope="module")
def broken(
    tiny_model_dir: Path, tiny_csv: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Recipe, tuple[Any, ...]]:
    """(a run killed in its 8th step, with the checkpoints of the third and the sixth; what it comes to unbroken)."""
    recipe = Recipe.from_dict(
        {
            "model": str(tiny_model_dir), "train_file": str(tiny_csv[0]), "validation_file": str(tiny_csv[1]),
            "methods": "qat,mp", "max_length": 32, "batch_size": 8, "epochs": 1, "save_steps": 3, "precision": "fp32",
            "out": str(tmp_path_factory.mktemp("unbroken")),
        }
    )  # fmt: skip
    unbroken = whole_numbers(compress(recipe))
    recipe = recipe.replace(out=str(tmp_path_factory.mktemp("broken")))
    break_off(recipe, after=7)
    return recipe, unbroken


@pytest.fixture
def run(broken: tuple[Recipe, tuple[Any, ...]], tmp_path: Path) -> tuple[Recipe, RunFolder]:
    """A copy of the broken run, to be harmed."""
    shutil.copytree(str(broken[0].out), tmp_path / "run")
    return broken[0].replace(out=str(tmp_path / "run")), RunFolder(tmp_path / "run")


def alter(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def swap(path: Path) -> None:
    """Puts the file of the other checkpoint in its place: whole, and of another step."""
    shutil.copy(path.parents[1] / "checkpoint-3" / path.name, path)


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n")


HARMS: dict[str, Callable[[Path], Any]] = {
    "missing": Path.unlink,
    "emptied": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-7]),
    "altered": alter,
    "longer": grow,
    "of another step": swap,
    "a folder": folder,
    "a pipe": pipe,
}


def test_every_file_of_a_checkpoint_is_listed(run: tuple[Recipe, RunFolder]) -> None:
    checkpoints = run[1].checkpoints
    assert sorted(path.name for path in checkpoints.iterdir()) == ["checkpoint-3", "checkpoint-6", FINGERPRINT]
    assert {path.name for path in (checkpoints / "checkpoint-6").iterdir()} == set(FILES)


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("name", FILES)
def test_any_harm_to_any_file(name: str, harm: str, run: tuple[Recipe, RunFolder]) -> None:
    held = run[1]
    last = held.last_checkpoint()
    assert last is not None and last[1].step == 6
    if (name, harm) == (MARKER, "longer"):  # a line feed is none
        return
    HARMS[harm](last[0] / name)
    older = held.last_checkpoint()
    assert older is not None and older[1].step == 3
    told = held.clear_incomplete()
    assert not last[0].exists() and older[0].exists()
    # without its marker it looks as a kill leaves it
    assert len(told) == ((name, harm) != (MARKER, "missing"))
    named = "is not as it was written" if (name, harm) == (MARKER, "of another step") else name
    assert all("checkpoint-6 is damaged (" in sentence and named in sentence for sentence in told)


def test_a_file_that_was_not_written_with_it(run: tuple[Recipe, RunFolder]) -> None:
    """transformers loads a scaler.pt where it finds one."""
    (run[1].checkpoints / "checkpoint-6" / "scaler.pt").write_bytes(b"")
    assert "scaler.pt was not written with it" in run[1].clear_incomplete()[0]


@pytest.mark.parametrize("name", ["optimizer.pt", "rng_state.pth"])
def test_an_older_checkpoint_takes_its_place(
    name: str, run: tuple[Recipe, RunFolder], broken: tuple[Recipe, tuple[Any, ...]]
) -> None:
    recipe, held = run
    (held.checkpoints / "checkpoint-6" / name).unlink()
    listening = Listening()
    assert whole_numbers(compress(recipe, reporter=listening)) == broken[1]
    [damage] = [line for line in listening.said if "is damaged" in line]
    assert f"checkpoint-6 is damaged ({name} is missing) and is not used" in damage
    assert "going on from step 3 of 9" in listening.said


def test_where_none_is_whole_the_run_begins_anew(
    run: tuple[Recipe, RunFolder], broken: tuple[Recipe, tuple[Any, ...]]
) -> None:
    recipe, held = run
    for path in held.checkpoints.glob("checkpoint-*"):
        (path / MARKER).write_bytes(b"")
    listening = Listening()
    assert whole_numbers(compress(recipe, reporter=listening)) == broken[1]
    assert sum("is damaged" in line for line in listening.said) == 2
    assert not any("going on" in line for line in listening.said)


@pytest.mark.parametrize("harm", ["missing", "emptied", "cut", "altered"])
def test_checkpoints_of_unknown_data_are_not_used(
    harm: str, run: tuple[Recipe, RunFolder], broken: tuple[Recipe, tuple[Any, ...]]
) -> None:
    recipe, held = run
    HARMS[harm](held.checkpoints / FINGERPRINT)
    listening = Listening()
    if harm != "missing":
        held.begin(recipe, {})
        assert held.last_checkpoint() is None
        return
    assert whole_numbers(compress(recipe, reporter=listening)) == broken[1]
    assert any("do not record what they were trained on and are not used" in line for line in listening.said)


def test_nothing_of_a_checkpoint_is_unpickled(run: tuple[Recipe, RunFolder], monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []
    load = torch.load

    def watched(path: Any, *args: Any, **kwargs: Any) -> Any:
        loaded.append((Path(path).name, kwargs.get("weights_only")))
        return load(path, *args, **kwargs)

    monkeypatch.setattr(torch, "load", watched)
    compress(run[0])
    assert sorted(loaded) == [("optimizer.pt", True), ("rng_state.pth", True), ("scheduler.pt", True)]


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "model.safetensors"])
def test_a_whole_checkpoint_of_something_else(name: str, run: tuple[Recipe, RunFolder]) -> None:
    """As another version could have written it: sealed, and of no use."""
    recipe, held = run
    last = held.last_checkpoint()
    assert last is not None
    torch.save({"strange": Marker}, last[0] / name)  # a class, which is not loaded
    durable.seal(last[0], MARKER, asdict(last[1]))
    with pytest.raises(InputError, match=r"checkpoint-6 does not fit this version of sparseq, torch or transformers"):
        compress(recipe)
    assert held.last_checkpoint() is not None


def test_two_are_kept_and_one_while_a_third_is_written(
    run: tuple[Recipe, RunFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    complete = RunFolder.complete

    def watched(self: RunFolder, checkpoint: Path, marker: Marker) -> None:
        before = sorted(path.name for path in self.checkpoints.glob("checkpoint-*/complete") for path in [path.parent])
        complete(self, checkpoint, marker)
        after = sorted(path.parent.name for path in self.checkpoints.glob("checkpoint-*/complete"))
        seen.append((before, after))

    monkeypatch.setattr(RunFolder, "complete", watched)
    compress(run[0])
    assert seen == [(["checkpoint-6"], ["checkpoint-6", "checkpoint-9"])]


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"files": {}}', b"null", b'{"step": 1'])
def test_markers_that_are_none(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / CHECKPOINTS / "checkpoint-3"
    path.mkdir(parents=True)
    (path / MARKER).write_bytes(content)
    (tmp_path / CHECKPOINTS / "checkpoint-x").mkdir()
    assert RunFolder(tmp_path).last_checkpoint() is None
    durable.seal(path, MARKER, {"step": 3})
    assert RunFolder(tmp_path).last_checkpoint() is None
    durable.seal(path, MARKER, asdict(Marker(3, 9, 1.5, 1, 2)))
    assert RunFolder(tmp_path).last_checkpoint() == (path, Marker(3, 9, 1.5, 1, 2))


def test_files_are_on_the_disk_before_the_marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[str] = []
    fsync = os.fsync

    def watched(descriptor: int) -> None:
        flushed.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("no /proc to ask which file a descriptor is of")
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    monkeypatch.setattr(os, "fsync", watched)
    durable.seal(tmp_path, MARKER, {})
    assert flushed == ["a", "b", tmp_path.name, f"{MARKER}.partial", tmp_path.name]
