"""Model folders that cannot be used, and teachers of little use: the true reason, before anything is trained."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sparseq.cli import main
from sparseq.errors import InputError
from sparseq.models import load_model


def rewrite(path: Path, **changes: Any) -> None:
    content = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({name: value for name, value in content.items() if value != "absent"}))


@pytest.fixture
def folder(tiny_model_dir: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model, to be harmed."""
    return Path(shutil.copytree(tiny_model_dir, tmp_path / "harmed"))


class Program:
    def __reduce__(self) -> Any:
        return os.system, ("exit 1",)


def put_program(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"weight": Program()}, folder / "pytorch_model.bin")


def put_infinity(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["classifier.bias"][0] = float("inf")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def without_head(folder: Path, part: str) -> None:
    tensors = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("classifier") and part not in name}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    rewrite(folder / "config.json", architectures="absent")


HARMS: dict[str, tuple[Callable[[Path], None], str]] = {
    "a pickle with a program": (put_program, "holds more than tensors, which is not loaded: save them as safetensors"),
    "an unknown activation": (lambda f: rewrite(f / "config.json", hidden_act="nelu"), "config.json names 'nelu'"),
    "an infinite weight": (put_infinity, "harmed cannot be used: 'classifier.bias' holds Inf"),
}


@pytest.mark.parametrize("harm", HARMS)
def test_the_reason_is_for_who_has_the_files(harm: str, folder: Path) -> None:
    alter, sentence = HARMS[harm]
    alter(folder)
    with pytest.raises(InputError, match=sentence) as caught:
        load_model(folder, num_labels=2)
    assert str(folder) in str(caught.value) and "weights_only" not in str(caught.value)


def test_a_teacher_whose_config_names_no_architecture(folder: Path) -> None:
    rewrite(folder / "config.json", architectures="absent")
    load_model(folder, num_labels=2, teacher=True)


@pytest.mark.parametrize("part", ["no other", "pooler"])
def test_a_teacher_without_a_head_and_architecture(part: str, folder: Path) -> None:
    without_head(folder, part)
    with pytest.raises(InputError, match="has no trained classification head"):
        load_model(folder, num_labels=2, teacher=True)


def command(model: Path, data: tuple[Path, Path], out: Path, *more: str) -> list[str]:
    given = ["--model", model, "--train-file", data[0], "--validation-file", data[1], "--methods", "none", "--out", out]
    return ["compress", *map(str, given), "--max-length", "32", "--dry-run", *more]


@pytest.mark.parametrize("teacher", [False, True])
def test_no_padding_token(
    teacher: bool, folder: Path, tiny_model_dir: Path, tiny_csv: tuple[Path, Path], tmp_path: Path, capsys: Any
) -> None:
    """A batch of two texts needs one; a single text does not."""
    rewrite(folder / "tokenizer_config.json", pad_token=None)
    more = ["--methods", "kd", "--teacher", str(folder)] if teacher else []
    assert main(command(tiny_model_dir if teacher else folder, tiny_csv, tmp_path / "out", *more)) == 2
    error = capsys.readouterr().err
    assert "has no padding token" in error and "name one as pad_token" in error and str(folder) in error


def test_a_length_that_no_model_reads(folder: Path, tiny_csv: tuple[Path, Path], tmp_path: Path, capsys: Any) -> None:
    """It is neither tried nor said to be a lack of memory."""
    assert main(command(folder, tiny_csv, tmp_path / "out", "--max-length", str(10**10))) == 2
    assert "--max-length wants a whole number" in capsys.readouterr().err
    assert main(command(folder, tiny_csv, tmp_path / "out", "--max-length", str(10**6))) == 2
    assert "--max-length 1000000 is more than the 64 tokens" in capsys.readouterr().err


def test_few_tokens_of_the_tokenizer(folder: Path, tiny_csv: tuple[Path, Path], tmp_path: Path, capsys: Any) -> None:
    rewrite(folder / "tokenizer_config.json", model_max_length=2)
    assert main(command(folder, tiny_csv, tmp_path / "out")) == 2
    assert "is more than the 2 tokens" in capsys.readouterr().err


def teacher_of(folder: Path, sign: float) -> None:
    """Makes the model say 0 or 1 whatever it reads."""
    tensors = load_file(folder / "model.safetensors")
    tensors["classifier.weight"].zero_()
    tensors["classifier.bias"] = torch.tensor([-sign, sign])
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_teacher_that_always_says_the_same(
    sign: float, folder: Path, tiny_csv: tuple[Path, Path], tmp_path: Path, capsys: Any
) -> None:
    teacher_of(folder, sign)
    assert main(command(folder, tiny_csv, tmp_path / "out", "--methods", "kd", "--teacher", str(folder))) == 0
    assert "one answer for all rows would score 0.5250: is it a teacher of this" in capsys.readouterr().err
