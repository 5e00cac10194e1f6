"""A recipe of the tiny model on the tiny data, which runs in about a second.

`SPARSEQ_TEST_PRECISION` (fp32 or bf16) forces the precision of every run that names none.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sparseq.train import Recipe


@pytest.fixture
def make_recipe(
    tiny_model_dir: Path, tiny_teacher_dir: Path, tiny_csv: tuple[Path, Path], tmp_path: Path
) -> Callable[..., Recipe]:
    """A recipe that runs; keyword arguments change it."""

    def make(**changes: Any) -> Recipe:
        settings = {
            "model": str(tiny_model_dir),
            "teacher": str(tiny_teacher_dir),
            "train_file": str(tiny_csv[0]),
            "validation_file": str(tiny_csv[1]),
            "max_length": 32,
            "batch_size": 8,
            "epochs": 2,
            "lr": 1e-3,
            "precision": os.environ.get("SPARSEQ_TEST_PRECISION", "auto"),
            "out": str(tmp_path / "out"),
        }
        return Recipe.from_dict({**settings, **changes})

    return make
