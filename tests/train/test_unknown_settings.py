"""Unknown settings, and other libraries' names for a setting: a hint at the right name."""

from pathlib import Path

import pytest

from sparseq.cli import main
from sparseq.errors import InputError
from sparseq.train import Recipe
from sparseq.train.settings import flag
from sparseq.train.unknown import _ELSEWHERE, USUAL_NAMES

USUAL = {
    "learning_rate": "lr", "num_train_epochs": "epochs", "per_device_train_batch_size": "batch_size",
    "train_batch_size": "batch_size", "max_seq_length": "max_length", "output_dir": "out", "teacher_model": "teacher",
    "learningRate": "lr", "OUTPUT-DIR": "out", "target_sparsity": "sparsity", "random_seed": "seed",
    "model_name_or_path": "model", "warmup_ratio": "lr_warmup", "text_colums": "text_columns",
    "learning_rat": "lr", "kd.alpha": "kd_alpha",
}  # fmt: skip


@pytest.mark.parametrize("name", USUAL)
def test_names_from_elsewhere_get_a_hint(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=f"unknown setting '{name}': did you mean '{USUAL[name]}'"):
        Recipe.from_dict({name: 1})
    (tmp_path / "r.yaml").write_text(f"{name}: 1\n")
    with pytest.raises(InputError, match=f"did you mean '{USUAL[name]}'"):
        Recipe.from_file(tmp_path / "r.yaml")
    for argv in (["compress", f"--{name}", "1"], ["compress", "--seed", "1", f"--{name}=1"]):
        assert main(argv) == 2
        assert f"did you mean {flag(USUAL[name])}?" in capsys.readouterr().err


def test_the_names_from_elsewhere_are_no_settings_and_mean_one() -> None:
    assert not set(USUAL_NAMES) & set(Recipe.settings())
    assert set(USUAL_NAMES.values()) <= set(Recipe.settings())
    assert sum(len(names.split()) for names in _ELSEWHERE.values()) == len(USUAL_NAMES), "a name stands twice"
