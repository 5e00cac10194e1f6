"""One run at a time in a folder, whatever became of those before."""

import errno
import json
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sparseq.cli import main
from sparseq.errors import InputError
from sparseq.train import Recipe, compress, trainer
from sparseq.train.lock import LOCK, run_lock
from sparseq_kernels import locks

pytestmark = pytest.mark.skipif(locks.fcntl is None, reason="no locks of this kind here")


def no_words(message: str) -> None:
    raise AssertionError(message)


def test_the_second_is_told_who_holds_it(tmp_path: Path) -> None:
    held = tmp_path / "runs" / "out"
    with run_lock(held, no_words):
        with pytest.raises(InputError, match=r"is in use by another run") as caught, run_lock(held, no_words):
            pass
        for part in (str(held), f"process {os.getpid()} on {socket.gethostname()}, since 2", "UTC"):
            assert part in str(caught.value)
        assert (held / LOCK).exists()  # the second has taken nothing away
        with pytest.raises(InputError, match="in use"), run_lock(held, no_words):
            pass
        with run_lock(tmp_path / "runs" / "other", no_words):
            pass
    assert not (tmp_path / "runs").exists()  # nothing came into it
    with run_lock(held, no_words):
        (held / "result").write_text("")
    assert os.listdir(held) == ["result"]


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"process": "\\n"}'])
def test_a_holder_that_has_not_said_who_it_is(content: bytes, tmp_path: Path) -> None:
    with run_lock(tmp_path, no_words):
        (tmp_path / LOCK).write_bytes(content)
        with pytest.raises(InputError, match="which has just begun"), run_lock(tmp_path, no_words):
            pass


def test_a_killed_process_leaves_no_lock(tmp_path: Path) -> None:
    held = tmp_path / "out"
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        with run_lock(held, no_words):
            os.write(write, b"locked")
            signal.pause()
    os.read(read, 6)
    with pytest.raises(InputError, match=f"process {child} on "), run_lock(held, no_words):
        pass
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert json.loads((held / LOCK).read_text())["process"] == child
    with run_lock(held, no_words):
        assert json.loads((held / LOCK).read_text())["process"] == os.getpid()
    assert not held.exists()  # the killed one had made it and left nothing in it


def test_a_lock_whose_file_goes_while_it_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run before ends between the opening of its file and its locking: a lock on no name would keep nobody out."""
    flock, gone = locks.fcntl.flock, []

    def late(descriptor: int, how: int) -> None:
        if not gone:
            gone.append((tmp_path / LOCK).unlink())
        flock(descriptor, how)

    monkeypatch.setattr(locks.fcntl, "flock", late)
    with run_lock(tmp_path, no_words):
        assert (tmp_path / LOCK).exists()
        with pytest.raises(InputError, match="in use"), run_lock(tmp_path, no_words):
            pass


def test_where_there_are_no_locks_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    said: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(locks.fcntl, "flock", refuse)
        with run_lock(tmp_path, said.append):
            pass
    monkeypatch.setattr(locks, "fcntl", None)
    with run_lock(tmp_path, said.append):
        pass
    assert [str(tmp_path) in line and "make sure that no other run writes to it" in line for line in said] == [
        True,
        True,
    ]


def test_a_second_start_of_a_run(
    make_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It ends at once, and the first continues as if nothing had been."""
    recipe = make_recipe(methods="none", epochs=1, save_steps=4)
    step = trainer.CompressTrainer.training_step
    second: list[Any] = []

    def start_again(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step == 6 and not second:
            second.append(main(["compress", "--recipe", f"{recipe.out}/recipe.toml", "--out", str(recipe.out)]))
        return step(self, *args, **kwargs)

    monkeypatch.setattr(trainer.CompressTrainer, "training_step", start_again)
    assert compress(recipe).steps == 9
    assert second == [2]
    said = capsys.readouterr().err
    assert f"is in use by another run (process {os.getpid()} on " in said
    assert LOCK not in os.listdir(str(recipe.out))
    assert compress(recipe).finished_before
