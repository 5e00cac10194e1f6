"""A save that fails, is killed, or meets another leaves a whole model."""

import contextlib
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from altered import classifier
from file_tree import tree
from torch import nn

from sparseq import checkpoint
from sparseq.checkpoint import CONFIG, WEIGHTS, load, save, verify
from sparseq.errors import InputError


def test_a_failed_save_leaves_the_old_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError("No space left on device")

    save(classifier(), tmp_path)
    before = tree(tmp_path)
    monkeypatch.setattr(checkpoint.write, "save_file", full)
    with pytest.raises(OSError, match="No space"):
        save(classifier(num_labels=3), tmp_path)
    assert tree(tmp_path) == before


KILLED = """
import sys
from torch import nn
from sparseq.checkpoint import save
print("ready", flush=True)
while True:
    save(nn.Sequential(*(nn.Linear(256, 256) for _ in range(8))), sys.argv[1])
"""


@pytest.mark.slow
def test_killed_while_saving(tmp_path: Path) -> None:
    """Whenever the writer is killed, the folder loads, and the next save clears what was left."""
    target = tmp_path / "model"
    draw = random.Random(0)

    def skeleton() -> nn.Module:
        return nn.Sequential(*(nn.Linear(256, 256) for _ in range(8)))

    save(skeleton(), target)
    for _ in range(2):
        writer = subprocess.Popen([sys.executable, "-c", KILLED, str(target)], stdout=subprocess.PIPE)
        assert writer.stdout is not None and writer.stdout.readline() == b"ready\n"
        time.sleep(draw.uniform(0.0, 0.2))
        os.kill(writer.pid, signal.SIGKILL)
        writer.communicate()
        load(target, skeleton())
    save(skeleton(), target)
    assert os.listdir(target) == [WEIGHTS]


@contextlib.contextmanager
def saving(folder: Path) -> Iterator[None]:
    """While another save into the folder is under way."""
    begun, end = threading.Event(), threading.Event()

    class Slow:
        def save_pretrained(self, folder: Path) -> None:
            begun.set()
            assert end.wait(60)

    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(save, classifier(), folder, Slow())
        try:
            assert begun.wait(60)
            yield
        finally:
            end.set()
        other.result()


@pytest.mark.skipif(sys.platform == "win32", reason="folders have no locks there")
def test_one_save_at_a_time(tmp_path: Path) -> None:
    """Else one moves the other's half-written file into place."""
    with saving(tmp_path):
        before = tree(tmp_path)
        with pytest.raises(InputError, match="another save into it is under way"):
            save(classifier(num_labels=3), tmp_path)
        assert tree(tmp_path) == before
        save(classifier(num_labels=3), tmp_path / "another")
    assert load(tmp_path).config.num_labels == 2  # type: ignore[union-attr]
    save(classifier(num_labels=3), tmp_path)
    assert load(tmp_path).config.num_labels == 3  # type: ignore[union-attr]


def test_a_full_disk(tmp_path: Path) -> None:
    """Full in the middle of the weights: what was there stays whole, and nothing else is left."""
    size = save(classifier(), tmp_path).stat().st_size // 2
    before = tree(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))  # Python ignores the signal
    try:
        with pytest.raises(OSError, match="File too large"):
            save(classifier(num_labels=3), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert tree(tmp_path) == before


def test_killed_between_the_two_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old weights still find the config that belongs to them."""
    save(classifier(), tmp_path)
    moved: list[str] = []

    def broken(source: Path, target: Path, replace: Any = os.replace) -> None:
        if moved:
            raise KeyboardInterrupt
        moved.append(Path(target).name)
        replace(source, target)

    monkeypatch.setattr("sparseq.checkpoint.write.os.replace", broken)
    monkeypatch.setattr("sparseq.checkpoint.write.shutil.rmtree", lambda *args, **kwargs: None)
    with pytest.raises(KeyboardInterrupt):
        save(classifier(hidden_size=4, num_hidden_layers=2), tmp_path)
    monkeypatch.undo()
    assert moved == [CONFIG]
    assert load(tmp_path).config.num_hidden_layers == 1  # type: ignore[union-attr]
    verify(tmp_path)
    save(classifier(num_hidden_layers=2), tmp_path)
    assert load(tmp_path).config.num_hidden_layers == 2  # type: ignore[union-attr]
    assert not (tmp_path / ".saving").exists()
