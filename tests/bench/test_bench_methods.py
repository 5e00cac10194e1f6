"""The studies of a run's settings: what they compare, on which rows, and that each program runs on a tiny model."""

import csv
from pathlib import Path

import pytest
import torch
from torch import nn

from bench.studies import calibration, layer_sparsity, learned_scales, methods, smoothing
from sparseq import convert
from sparseq.errors import InputError
from sparseq.train import Recipe


@pytest.fixture
def glue(tmp_path: Path, tiny_csv: tuple[Path, Path]) -> Path:
    """The classic GLUE folder, of the tiny training rows."""
    folder = tmp_path / "glue" / "SST-2"
    folder.mkdir(parents=True)
    with tiny_csv[0].open(newline="", encoding="utf-8") as file:
        rows = [f"{row['sentence']} \t{row['label']}" for row in csv.DictReader(file)]
    more = [f"row {number} of the others\t{number % 2}" for number in range(200)]
    (folder / "train.tsv").write_text("\n".join(["sentence\tlabel", *rows, *more]) + "\n", encoding="utf-8")
    return folder.parent


@pytest.mark.parametrize("name", methods.STUDIES)
def test_every_case_of_a_study_is_a_recipe_of_its_own(name: str) -> None:
    study = methods.STUDIES[name]
    found = [Recipe().replace(**{**study.common, **changes}) for changes in study.cases.values()]
    assert len(set(found)) == len(found) >= 3


def test_held_out_rows_share_no_text_with_the_training_rows(glue: Path, tmp_path: Path) -> None:
    source = glue / "SST-2" / "train.tsv"
    train, held_out = methods.split(source, tmp_path / "rows", 40, 30, seed=0)
    texts = []
    for path in (train, held_out):
        with path.open(newline="", encoding="utf-8") as file:
            texts.append([row["sentence"] for row in csv.DictReader(file)])
    assert [len(part) for part in texts] == [40, 30]
    assert not any(a in b or b in a for a in texts[0] for b in texts[1])
    before = train.read_bytes()
    assert methods.split(source, tmp_path / "rows", 40, 30, seed=0)[0].read_bytes() == before


def test_the_state_of_learned_scales() -> None:
    torch.manual_seed(0)
    model = convert(nn.Sequential(nn.Linear(16, 8)), scale="lsq")
    usual = learned_scales.state_of(model)
    assert usual["negative"] == 0 and usual["smallest_range"] == pytest.approx(1) and usual["sqnr_db"] > 40
    with torch.no_grad():
        model[0].step_size[:2].neg_()
    assert learned_scales.state_of(model)["negative"] == 0.25


def test_outliers_are_in_one_batch_alone() -> None:
    torch.manual_seed(0)
    model = convert(nn.Sequential(nn.Linear(4, 4)), activation="static")
    batches = [{"input": torch.ones(2, 4)}] * 4
    seen = []
    for batch in calibration.with_outliers(model, batches):
        model[0].train()(batch["input"])
        seen.append(round(127 * model[0].input_scale.item()))
        model[0].input_scale.zero_()
    assert seen == [1, 1, 20, 1, 1]


@pytest.mark.slow
@pytest.mark.parametrize("program", [methods, learned_scales, calibration, layer_sparsity, smoothing])
def test_the_programs_run(program: object, glue: Path, tmp_path: Path, tiny_model_dir: Path) -> None:
    rows = ["--data-dir", str(glue), "--runs", str(tmp_path / "runs")]
    options = {
        methods: [*rows, "--study", "lr"],
        learned_scales: [*rows, "--methods", "one rate,logarithmic"],
        calibration: rows,
        smoothing: rows,
        layer_sparsity: [],
    }
    given = ["--model", str(tiny_model_dir), *options[program], "--smallest", "--out", str(tmp_path)]  # type: ignore[index]
    before = learned_scales.linear.MOST_CLIPPED
    try:
        assert program.main(given) == 0  # type: ignore[attr-defined]
    finally:
        learned_scales.linear.MOST_CLIPPED = before
    (result,) = tmp_path.glob("*.json")
    assert '"cells"' in result.read_text(encoding="utf-8")


def test_a_run_that_has_finished_is_read_and_not_run_again(
    glue: Path,
    tmp_path: Path,
    tiny_model_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = ["--model", str(tiny_model_dir), "--data-dir", str(glue), "--runs", str(tmp_path / "runs"), "--smallest"]
    assert methods.main([*given, "--study", "lr", "--cases", "5e-05"]) == 0
    first = capsys.readouterr().out
    monkeypatch.setattr(methods, "compress", None)
    assert methods.main([*given, "--study", "lr", "--cases", "5e-05"]) == 0
    assert capsys.readouterr().out == first != ""
    (metrics,) = (tmp_path / "runs" / "lr").glob("*/metrics.json")
    recipe = metrics.with_name("recipe.toml")
    recipe.write_text(recipe.read_text().replace("epochs = 1.0", "epochs = 2.0"))
    with pytest.raises(InputError, match="holds a run with another epochs: remove it"):
        methods.main([*given, "--study", "lr", "--cases", "5e-05"])
