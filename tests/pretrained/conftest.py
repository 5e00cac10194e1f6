"""Saved folders, and code run without sparseq."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fresh import FreshProcesses
from pretrained_models import VERSIONS, model

from sparseq.checkpoint import save


class Folders(dict[str, Path]):
    """A folder for each version that is asked for, saved when it is asked for first."""

    def __init__(self, new_folder: Callable[[str], Path], tokenizer: Any) -> None:
        super().__init__()
        self.new_folder, self.tokenizer = new_folder, tokenizer

    def __missing__(self, version: str) -> Path:
        self[version] = self.new_folder("saved")
        save(model() if version == "plain" else VERSIONS[version](), self[version], self.tokenizer)
        return self[version]


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Any) -> Folders:
    """The folders of `VERSIONS`, and "plain", a model without any layer of sparseq's."""
    return Folders(tmp_path_factory.mktemp, tiny_tokenizer)


@pytest.fixture
def python(fresh: FreshProcesses) -> Callable[..., str]:
    """What code prints in a process that has imported torch alone."""

    def run(code: str, *arguments: str) -> str:
        done = fresh.run(f"import sys; sys.argv[1:] = {list(arguments)}\n{code}")
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
