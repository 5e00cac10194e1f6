"""The studies on rows of SST-2: which rows these are, and that each program runs on a tiny model."""

import csv
from pathlib import Path

import pytest
import torch
from torch import nn

from bench.studies import calibration, layer_sparsity, learned_scales, rows, smoothing
from sparseq import convert


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


def test_held_out_rows_share_no_text_with_the_training_rows(glue: Path, tmp_path: Path) -> None:
    source = glue / "SST-2" / "train.tsv"
    train, held_out = rows.split(source, tmp_path / "rows", 40, 30, seed=0)
    texts = []
    for path in (train, held_out):
        with path.open(newline="", encoding="utf-8") as file:
            texts.append([row["sentence"] for row in csv.DictReader(file)])
    assert [len(part) for part in texts] == [40, 30]
    assert not any(a in b or b in a for a in texts[0] for b in texts[1])
    before = train.read_bytes()
    assert rows.split(source, tmp_path / "rows", 40, 30, seed=0)[0].read_bytes() == before


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
@pytest.mark.parametrize("program", [learned_scales, calibration, layer_sparsity, smoothing])
def test_the_programs_run(program: object, glue: Path, tmp_path: Path, tiny_model_dir: Path) -> None:
    common = ["--data-dir", str(glue), "--runs", str(tmp_path / "runs")]
    options = {
        learned_scales: [*common, "--methods", "one rate,logarithmic"],
        calibration: common,
        smoothing: common,
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
