"""What the machine fails at ends in one sentence that names the place, and the same command continues afterwards."""

import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models

from sparseq.checkpoint import read_metadata
from sparseq.cli import main
from sparseq.distill import cache
from sparseq.errors import InputError, MachineError
from sparseq.failures import is_out_of_memory, memory_kept, writing
from sparseq.train import Recipe, RunResult, compress, distributed, durable, folder, run, trainer
from sparseq.train.folder import RunFolder


@contextmanager
def disk_of(size: int) -> Iterator[None]:
    """Files may be no longer than so many bytes, which fails in the same calls as a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))  # Python ignores the signal
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def text(path: Path) -> None:
    with path.open("w") as file:
        file.write("x" * 100_000)


def vocabulary(path: Path) -> None:
    Tokenizer(models.WordPiece({str(number): number for number in range(5000)})).save(str(path))


WRITERS: dict[str, Callable[[Path], Any]] = {
    "text": text,
    "torch": lambda path: torch.save({"a": torch.ones(50_000)}, path),
    "safetensors": lambda path: save_file({"a": torch.ones(50_000)}, path),
    "tokenizers": vocabulary,
    "whole": lambda path: durable.write_whole(path, "x" * 100_000),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_in_every_librarys_words(writer: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(MachineError) as caught, disk_of(4096), writing(path):
        WRITERS[writer](path)
    said = str(caught.value)
    assert said.startswith(f"cannot write {path} (") and "MB are free there): free some space" in said
    assert "\n" not in said


@pytest.mark.parametrize("place", ["file/below", "missing/file", "folder"])
@pytest.mark.parametrize("writer", WRITERS)
def test_places_that_cannot_be_written(writer: str, place: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(MachineError, match=f"cannot write {tmp_path / place}"), writing(tmp_path / place):
        WRITERS[writer](tmp_path / place)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_read_only_places_have_another_way_out() -> None:
    with pytest.raises(MachineError, match="make it writable, or give another folder"), writing("/out/file"):
        raise PermissionError(13, "Permission denied")


@pytest.mark.parametrize("error", [RuntimeError("a bug"), ValueError("a bug"), InputError("a mistake")])
def test_other_errors_pass(error: Exception) -> None:
    for kept in (writing("file"), memory_kept("")):
        with pytest.raises(type(error)) as caught, kept:
            raise error
        assert caught.value is error


def allocate() -> None:
    torch.empty(2**50)


def allocate_in_python() -> None:
    bytearray(2**60)


def say_so(error: Exception) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


MEMORY: dict[str, Callable[[], None]] = {
    "torch": allocate,
    "Python": allocate_in_python,
    "a GPU": say_so(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total ...")),
    "C++": say_so(RuntimeError("std::bad_alloc")),
    "oneDNN": say_so(RuntimeError("could not create a memory object")),
    "the system": say_so(OSError(12, "Cannot allocate memory")),
    "safetensors": say_so(RuntimeError("Error while deserializing: Cannot allocate memory (os error 12)")),
}


@pytest.mark.parametrize("kind", MEMORY)
def test_memory_that_runs_out(
    kind: str, make_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = make_recipe(methods="none", epochs=1, save_steps=4)
    step = trainer.CompressTrainer.training_step

    def run_out(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step == 6:
            MEMORY[kind]()
        return step(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(trainer.CompressTrainer, "training_step", run_out)
        assert main(command(recipe)) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("sparseq: error: memory ran out") and "--batch-size" in said
    last = RunFolder(str(recipe.out)).last_checkpoint()
    assert last is not None and last[1].step == 4
    assert not is_out_of_memory(RuntimeError("a bug"))


def command(recipe: Recipe) -> list[str]:
    """The command of a recipe that names its files by whole paths."""
    path = Path(str(recipe.out)).with_suffix(".toml")
    path.write_text(recipe.to_toml())
    return ["compress", "--recipe", str(path), "--out", str(recipe.out)]


@pytest.fixture(scope="module")
def unbroken() -> dict[str, str]:
    return {}


# Where the disk is full, from which call of what on, of how many bytes, and what the sentence names.
FULL: dict[str, tuple[Any, str, int, int, str]] = {
    "the recipe": (RunFolder, "begin", 1, 100, "recipe.toml"),
    "the fingerprint": (folder, "write_sealed", 1, 100, "checkpoints/fingerprint.json"),
    "a checkpoint's weights": (trainer.CompressTrainer, "_save_checkpoint", 2, 10_000, "checkpoints/checkpoint-8"),
    "a checkpoint's optimizer": (
        trainer.CompressTrainer, "_save_optimizer_and_scheduler", 2, 10_000, "checkpoints/checkpoint-8",
    ),
    "a checkpoint's random state": (trainer.CompressTrainer, "_save_rng_state", 2, 100, "checkpoints/checkpoint-8"),
    "a checkpoint's marker": (RunFolder, "complete", 2, 100, "checkpoints/checkpoint-8/complete"),
    "the packed model": (run, "pack", 1, 1000, ""),
    "the metrics": (RunFolder, "finish", 1, 100, "metrics.json"),
}  # fmt: skip

# in the default run: others fail in the same calls
OFTEN_ENOUGH = {"the recipe", "the fingerprint", "a checkpoint's weights", "a checkpoint's random state"}


@pytest.mark.parametrize(
    "where", [pytest.param(where, marks=pytest.mark.slow if where in OFTEN_ENOUGH else ()) for where in FULL]
)
def test_a_full_disk(
    where: str,
    make_recipe: Callable[..., Recipe],
    unbroken: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    owner, name, at, size, named = FULL[where]
    recipe = make_recipe(methods="qat,mp", epochs=1, save_steps=4, precision="fp32")
    original, calls = getattr(owner, name), []

    with monkeypatch.context() as patch:
        full = disk_of(size)

        def fill(*args: Any, **kwargs: Any) -> Any:
            calls.append(1)
            if len(calls) == at:
                full.__enter__()
            return original(*args, **kwargs)

        patch.setattr(owner, name, fill)
        try:
            code = main(command(recipe))
        finally:
            full.__exit__(None, None, None)
    said = capsys.readouterr().err.splitlines()[-1]
    assert code == 1 and said.startswith("sparseq: error: cannot write "), said
    assert str(Path(str(recipe.out)) / named) in said and "give the same command again" in said
    held = RunFolder(str(recipe.out))
    assert not [path for path in held.path.rglob("*") if path.name.endswith(".partial") or path.name == ".saving"]
    assert not (held.path / "model.safetensors").exists() or where == "the metrics"
    if "checkpoint's" in where:  # what was half-written would keep the disk full
        assert [path.name for path in held.checkpoints.glob("checkpoint-*")] == ["checkpoint-4"]
    assert main(command(recipe)) == 0
    if not unbroken:
        unbroken["sha256"] = read_metadata(compress(recipe.replace(out=str(tmp_path / "unbroken"))).out)["sha256"]
    assert read_metadata(held.path)["sha256"] == unbroken["sha256"]


def test_a_cache_that_cannot_be_written(
    make_recipe: Callable[..., Recipe],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """The run needs no cache: it says so and continues."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SPARSEQ_CACHE", str(tmp_path / "file"))
    recipe = make_recipe(methods="kd", epochs=1)
    assert main(command(recipe)) == 0
    said = capsys.readouterr().err
    assert f"the teacher's logits are not kept for another run: cannot write {tmp_path / 'file'}" in said
    monkeypatch.setenv("SPARSEQ_CACHE", str(tmp_path / "cache"))

    def full(*args: Any) -> None:
        with disk_of(100):
            save_file(*args)

    monkeypatch.setattr(cache, "save_file", full)
    other = recipe.replace(out=str(tmp_path / "other"))
    assert main(command(other)) == 0
    assert "are not kept for another run: cannot write" in capsys.readouterr().err
    assert os.listdir(tmp_path / "cache" / "logits") == []
    results = [RunResult.from_folder(str(each.out)) for each in (recipe, other)]
    assert results[0].metrics == results[1].metrics


@pytest.mark.parametrize("out", ["/proc/sparseq/out", "/dev/null/out", "/sys/sparseq"])
def test_folders_that_cannot_be_made(
    out: str, make_recipe: Callable[..., Recipe], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    arguments = command(make_recipe(methods="none"))
    assert main([*arguments[:-1], out]) == 2
    said = capsys.readouterr().err
    assert f"cannot write to --out {out}" in said and "give a folder that you may write to" in said


WHOLE = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511"}
ANNOUNCED: dict[str, tuple[dict[str, str | None], str]] = {
    "no rank": ({"RANK": None}, "RANK is not set"),
    "no address": ({"MASTER_ADDR": None}, "MASTER_ADDR is not set"),
    "no port": ({"MASTER_PORT": None}, "MASTER_PORT is not set"),
    "the size alone": ({"RANK": None, "LOCAL_RANK": None, "MASTER_ADDR": None, "MASTER_PORT": None}, "RANK is not set"),
    "the local rank alone": (
        {"WORLD_SIZE": None, "RANK": None, "MASTER_ADDR": None, "MASTER_PORT": None}, "WORLD_SIZE is not set",
    ),
    "no size": ({"WORLD_SIZE": None}, "WORLD_SIZE is not set"),
    "a size of words": ({"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two'"),
    "a size of nothing": ({"WORLD_SIZE": "0"}, "WORLD_SIZE is '0'"),
    "an empty size": ({**dict.fromkeys(WHOLE), "WORLD_SIZE": ""}, "WORLD_SIZE is '', and must be"),
    "a rank beyond the size": ({"RANK": "2"}, "RANK is '2', and must be a whole number from 0 to 1"),
    "a negative rank": ({"RANK": "-1"}, "RANK is '-1'"),
    "a port beyond all": ({"MASTER_PORT": "99999"}, "MASTER_PORT is '99999'"),
    "mpirun": (
        {**dict.fromkeys(WHOLE), "OMPI_COMM_WORLD_SIZE": "2"}, "OMPI_COMM_WORLD_SIZE is 2: started by mpirun",
    ),
}  # fmt: skip


@pytest.mark.parametrize("dry", [(), ("--dry-run",)], ids=["run", "dry run"])
@pytest.mark.parametrize("announced", ANNOUNCED)
def test_processes_that_are_announced_in_part(
    announced: str,
    dry: tuple[str, ...],
    make_recipe: Callable[..., Recipe],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    changes, sentence = ANNOUNCED[announced]
    for name, value in {**WHOLE, **changes}.items():
        monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)
    recipe = make_recipe(methods="none")
    assert main([*command(recipe), *dry]) == 2
    [said] = capsys.readouterr().err.splitlines()
    assert sentence in said and "torchrun" in said
    assert not Path(str(recipe.out)).exists()


def test_an_address_that_one_process_alone_cannot_find(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**WHOLE, "WORLD_SIZE": "1", "MASTER_ADDR": "nowhere.invalid"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=r"process 0 of 1 cannot find nowhere\.invalid:29511 \(MASTER_ADDR\)"):
        distributed.start_processes()


def test_processes_that_do_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**WHOLE, "MASTER_PORT": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(distributed, "MEETING", distributed.MEETING / 600)  # one second
    with pytest.raises(InputError, match=r"process 0 of 2 cannot meet the others at 127\.0\.0\.1:0"):
        distributed.start_processes()
    assert not torch.distributed.is_initialized()
