"""Two processes with gloo: they train one model, and go on where they were broken off."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from two_ranks import TwoRanks, by_torchrun

from sparseq.checkpoint import read_metadata
from sparseq.train import Recipe, RunResult, compress

WORKER = Path(__file__).parent / "worker.py"


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoRanks]:
    found = TwoRanks(tmp_path_factory.mktemp("ranks"))
    yield found
    found.close()


def run_two(
    recipe: Recipe, folder: Path, name: str, die_at: int = 0, ranks: TwoRanks | None = None
) -> tuple[bool, set[str]]:
    """(whether both processes ended well, the digests of what they hold at the end). By torchrun without `ranks`."""
    digests = folder / f"{name}-digests"
    digests.mkdir(exist_ok=True)
    (folder / "recipe.toml").write_text(recipe.to_toml())
    arguments = [str(folder / "recipe.toml"), str(folder / name), str(digests), str(die_at)]
    if ranks is None:
        ended = [by_torchrun(WORKER, *arguments)]
    else:
        ended = ranks.run(f"import worker; worker.main(*{arguments!r})")
    well = all(one.returncode == 0 for one in ended)
    if not well:
        print(*(one.stderr for one in ended), sep="\n")
    return well, {path.read_text() for path in digests.iterdir()}


@pytest.mark.slow
def test_by_torchrun(make_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    well, digests = run_two(make_recipe(precision="bf16", save_steps=4), tmp_path, "whole")
    assert well and len(digests) == 1, "the processes hold different weights, masks or scales"
    assert RunResult.from_folder(tmp_path / "whole").steps == 2 * 9


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "broken_off"),
    [
        ({"prune_updates": 3}, True),
        ({"activation": "static", "scale": "lsq", "qat_start": 4, "hidden_loss": 1.0}, True),
        ({"activation": "static"}, False),
        ({"methods": "mp,ptq", "activation": "static", "scale": "mse", "smooth": 0.5}, False),
    ],
    ids=str,
)
def test_two_processes(
    changes: dict[str, Any],
    broken_off: bool,
    make_recipe: Callable[..., Recipe],
    tmp_path: Path,
    two_ranks: TwoRanks,
) -> None:
    # In bf16 another order of summation moves a tiny model's scores at will; `test_by_torchrun` is in bf16.
    recipe = make_recipe(save_steps=4, precision="fp32", **changes)
    well, digests = run_two(recipe, tmp_path, "whole", ranks=two_ranks)
    assert well
    assert len(digests) == 1, "the processes hold different weights, masks or scales"
    whole = RunResult.from_folder(tmp_path / "whole")
    assert whole.steps == 2 * 9  # the batch is shared, so there are as many steps as with one process
    alone = compress(recipe.replace(out=str(tmp_path / "alone")))
    assert abs(alone.score - whole.score) <= 0.2
    if not broken_off:
        return
    well, _ = run_two(recipe, tmp_path, "broken", die_at=12, ranks=two_ranks)
    assert not well
    assert (tmp_path / "broken" / "checkpoints" / "checkpoint-8" / "complete").exists()
    assert run_two(recipe, tmp_path, "broken", ranks=two_ranks) == (True, digests)
    broken = RunResult.from_folder(tmp_path / "broken")
    assert broken.metrics == whole.metrics
    assert read_metadata(broken.out)["sha256"] == read_metadata(whole.out)["sha256"]


NOWHERE = {"train_file": "nowhere.csv"}, "there is no file nowhere.csv"  # Raised in both.
TAKEN = {"out": "taken"}, "taken is not empty"  # Raised in the first.


def asked_for_what_cannot_be(make_recipe: Callable[..., Recipe], folder: Path, changes: dict[str, Any]) -> list[str]:
    """The arguments of a `sparseq compress` with these changes to a recipe."""
    (folder / "taken").mkdir()
    (folder / "taken" / "notes.txt").write_text("mine")
    (folder / "recipe.toml").write_text(make_recipe(**changes).to_toml())
    return ["compress", "--recipe", "recipe.toml", "--out", changes.get("out", "out")]


def check_is_told_once(errors: str, told: str) -> None:
    sentences = [line for line in errors.splitlines() if line.startswith("sparseq: error:")]
    assert len(sentences) == 1 and told in sentences[0], errors


@pytest.mark.slow
@pytest.mark.parametrize(("changes", "told"), [NOWHERE, TAKEN], ids=["in both", "in the first"])
@pytest.mark.parametrize("options", [(), ("--dry-run",)], ids=str)
def test_an_error_is_told_once(
    changes: dict[str, Any],
    told: str,
    options: tuple[str, ...],
    make_recipe: Callable[..., Recipe],
    tmp_path: Path,
    two_ranks: TwoRanks,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = [*asked_for_what_cannot_be(make_recipe, tmp_path, changes), *options]
    ended = two_ranks.run(f"import sys; from sparseq.cli import main; sys.exit(main({arguments!r}))")
    assert all(one.returncode != 0 for one in ended)
    check_is_told_once("".join(one.stderr for one in ended), told)


@pytest.mark.slow
def test_torchruns_own_error_is_told_once(make_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    changes, told = TAKEN
    arguments = asked_for_what_cannot_be(make_recipe, tmp_path, changes)
    ended = by_torchrun("-m", "sparseq", *arguments, cwd=tmp_path)
    assert ended.returncode != 0
    check_is_told_once(ended.stderr, told)


@pytest.mark.slow
def test_a_batch_that_two_cannot_share(make_recipe: Callable[..., Recipe], tmp_path: Path, two_ranks: TwoRanks) -> None:
    well, digests = run_two(make_recipe(batch_size=7), tmp_path, "odd", ranks=two_ranks)
    assert not well and not digests
    assert not (tmp_path / "odd").exists()
