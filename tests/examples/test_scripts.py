"""The scripts in examples/, each at its smallest: they train, pack, save, load, and print what came of it."""

import importlib
import re
import sys
from pathlib import Path

import pytest
import torch

import sparseq
from sparseq.nn import Packed, named_layers

ROOT = Path(__file__).parents[2]
SCRIPTS = ["classifier", "token_classification", "question_answering", "lora", "sentence_embeddings"]


def test_every_script_is_run_here_and_named_in_the_readme() -> None:
    """A script is what has a `main`."""
    found = {path.stem for path in (ROOT / "examples").glob("*.py") if "def main(" in path.read_text(encoding="utf-8")}
    assert found == set(SCRIPTS)
    readme = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\[(\w+)\.py\]\(\1\.py\)", readme)) == found


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("script", SCRIPTS)
def test_script(
    script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for needed in {"lora": "peft", "sentence_embeddings": "sentence_transformers"}.get(script, "torch").split():
        pytest.importorskip(needed)
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(sys, "argv", [script, "--smallest", "--out", str(tmp_path), "--epochs", "1"])
    state = torch.random.get_rng_state()
    importlib.import_module(f"examples.{script}").main()
    torch.random.set_rng_state(state)
    packed = sparseq.load(tmp_path / "packed")
    assert all(isinstance(layer, Packed) for _, layer in named_layers(packed))
    if script != "lora":
        weights = [layer.weight for name, layer in named_layers(packed) if ".layer." in name]
        kept = sum(int(weight.count_nonzero()) for weight in weights) / sum(weight.numel() for weight in weights)
        assert 0.3 < kept < 0.41  # 0.6 are removed, and some of the others are rounded to 0
    rows = re.findall(r"^(.{28})\s+([\d.]+)\s+([\d.]+) MB$", capsys.readouterr().out, re.MULTILINE)
    assert len(rows) in (2, 4)
    sizes = [float(size) for _, _, size in rows]
    assert sizes[1] < sizes[0] / 2
    if script == "sentence_embeddings":
        assert float(rows[1][1]) > 0.999
    if script == "lora":
        assert abs(float(rows[1][1]) - float(rows[0][1])) < 0.05
