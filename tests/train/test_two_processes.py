"""Two processes under torchrun with gloo: they train one model, and go on where they were broken off."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sparseq.checkpoint import read_metadata
from sparseq.train import Recipe, RunResult, compress

WORKER = Path(__file__).parent / "worker.py"


def run_two(recipe: Recipe, folder: Path, name: str, die_at: int = 0) -> tuple[int, set[str]]:
    """(exit code, the digests of what the two processes hold after training)."""
    digests = folder / f"{name}-digests"
    digests.mkdir(exist_ok=True)
    (folder / "recipe.toml").write_text(recipe.to_toml())
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    arguments = [folder / "recipe.toml", folder / name, digests, die_at]
    process = subprocess.run([*launcher, WORKER, *map(str, arguments)], check=False, timeout=300)
    return process.returncode, {path.read_text() for path in digests.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "broken_off"),
    [
        ({"prune_updates": 3}, True),
        ({"activation": "static", "scale": "lsq", "qat_start": 4, "hidden_loss": 1.0}, True),
        ({"activation": "static"}, False),
        ({"precision": "bf16"}, False),
    ],
    ids=str,
)
def test_two_processes(
    changes: dict[str, Any], broken_off: bool, make_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    recipe = make_recipe(save_steps=4, **{"precision": "fp32", **changes})
    code, digests = run_two(recipe, tmp_path, "whole")
    assert code == 0
    assert len(digests) == 1, "the processes hold different weights, masks or scales"
    whole = RunResult.from_folder(tmp_path / "whole")
    assert whole.steps == 2 * 9  # the batch is shared, so there are as many steps as with one process
    if recipe.precision == "fp32":  # in bf16 another order of summation moves a tiny model's scores at will
        alone = compress(recipe.replace(out=str(tmp_path / "alone")))
        assert abs(alone.score - whole.score) <= 0.2
    if not broken_off:
        return
    code, _ = run_two(recipe, tmp_path, "broken", die_at=12)
    assert code != 0
    assert (tmp_path / "broken" / "checkpoints" / "checkpoint-8" / "complete").exists()
    assert run_two(recipe, tmp_path, "broken") == (0, digests)
    broken = RunResult.from_folder(tmp_path / "broken")
    assert broken.metrics == whole.metrics
    assert read_metadata(broken.out)["sha256"] == read_metadata(whole.out)["sha256"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"train_file": "nowhere.csv"}, "there is no file nowhere.csv"),  # raised in both
        ({"out": "taken"}, "taken is not empty"),  # raised in the first
    ],
    ids=["in both", "in the first"],
)
@pytest.mark.parametrize("options", [(), ("--dry-run",)], ids=str)
def test_an_error_is_told_once(
    changes: dict[str, Any], told: str, options: tuple[str, ...], make_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").write_text("mine")
    (tmp_path / "recipe.toml").write_text(make_recipe(**changes).to_toml())
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "sparseq"]
    process = subprocess.run(
        [*command, "compress", "--recipe", "recipe.toml", "--out", changes.get("out", "out"), *options],
        check=False, timeout=300, cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert process.returncode != 0
    sentences = [line for line in process.stderr.splitlines() if line.startswith("sparseq: error:")]
    assert len(sentences) == 1 and told in sentences[0], process.stderr


@pytest.mark.slow
def test_a_batch_that_two_cannot_share(make_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    code, digests = run_two(make_recipe(batch_size=7), tmp_path, "odd")
    assert code != 0 and not digests
    assert not (tmp_path / "odd").exists()
