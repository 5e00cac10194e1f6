"""A study of the tiny model on the tiny data, whose runs take a second."""

from collections.abc import Callable
from pathlib import Path

import pytest

GRID = """
[[grids]]
name = "subsets"
methods = ["none", "qat", "qat,kd,mp"]
sparsity = [0.5]
"""


@pytest.fixture
def study_file(tiny_model_dir: Path, tiny_csv: tuple[Path, Path], tmp_path: Path) -> Callable[..., Path]:
    """Writes a study file; `grids` replaces its grids, and `more` goes before its sizes."""

    def write(grids: str = GRID, more: str = "", sizes: str = "", name: str = "tiny study") -> Path:
        path = tmp_path / "study.toml"
        path.write_text(
            f"""
name = "{name}"
[common]
train_file = '{tiny_csv[0]}'
validation_file = '{tiny_csv[1]}'
max_length = 32
batch_size = 8
epochs = 1
lr = 1e-3
precision = "fp32"
pattern = "4x4"
{more}
[[sizes]]
name = "L2"
model = '{tiny_model_dir}'
[[sizes]]
name = "L1"
model = "@teacher"
layers = 1
{sizes}
[[tasks]]
name = "words"
{grids}
""",
            encoding="utf-8",
        )
        return path

    return write
