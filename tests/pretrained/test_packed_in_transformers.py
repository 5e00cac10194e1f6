"""What transformers does with packed models: saving, training, evaluating, generating."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pretrained_models import IDS, MASK, VERSIONS, assert_same, auto_class, model, output

from sparseq.checkpoint import CONFIG, load, read_metadata, save
from sparseq.nn import convert, pack
from sparseq.nn.save_pretrained import SavedBySparseq, attach_quantizer

PACKED: dict[str, Callable[[Path], Any]] = {
    "pack": lambda folder: VERSIONS["packed"](),
    "load": load,
    "load into a skeleton": lambda folder: load(folder, model()),
    "from_pretrained": lambda folder: auto_class(folder).from_pretrained(folder),
    "a part of pack's": lambda folder: VERSIONS["packed"]().bert,
    "a part of load's": lambda folder: load(folder).bert,
    "a part of from_pretrained's": lambda folder: auto_class(folder).from_pretrained(folder).bert,
}


@pytest.mark.parametrize("way", PACKED)
def test_without_a_quantizer_packed_models_are_not_saved(
    way: str, folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where sparseq cannot register with transformers."""
    packed = PACKED[way](folders["packed"])  # imports transformers, with which sparseq registers
    monkeypatch.setattr("sparseq.nn.save_pretrained._makers", [])
    attach_quantizer(packed)
    with pytest.raises(ValueError, match=r"sparseq\.save\(model, folder\)"):
        packed.save_pretrained(tmp_path / "no")  # type: ignore[operator]
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("way", PACKED)
def test_parts_and_copies_are_saved_whole(way: str, folders: dict[str, Path], tmp_path: Path) -> None:
    packed = PACKED[way](folders["packed"])
    packed.save_pretrained(tmp_path)
    again = load(tmp_path)
    assert_same(again, packed)
    torch.testing.assert_close(output(again), output(packed))


def test_trainer_refuses_a_packed_model(folders: dict[str, Path], tmp_path: Path) -> None:
    from transformers import Trainer, TrainingArguments

    found = auto_class(folders["packed"]).from_pretrained(folders["packed"])
    with pytest.raises(ValueError, match="cannot perform fine-tuning on purely quantized models"):
        Trainer(found, TrainingArguments(str(tmp_path), report_to="none"))
    found._hf_peft_config_loaded = True  # as peft's integration marks a model with adapters
    Trainer(found, TrainingArguments(str(tmp_path), report_to="none"))


@pytest.mark.parametrize("way", ["pack's", "load's"])
def test_trainer_evaluates_a_packed_model(way: str, folders: dict[str, Path], tmp_path: Path) -> None:
    from transformers import Trainer, TrainingArguments

    packed = VERSIONS["packed"]() if way == "pack's" else load(folders["packed"])
    rows = [{"input_ids": ids, "attention_mask": mask} for ids, mask in zip(IDS, MASK, strict=True)]
    found = Trainer(packed, TrainingArguments(str(tmp_path), report_to="none", use_cpu=True)).predict(rows)
    torch.testing.assert_close(torch.from_numpy(found.predictions), output(packed))


def test_what_transformers_asks_of_a_models_quantizer_is_there() -> None:
    import transformers

    found = set()
    for path in Path(transformers.__file__).parent.rglob("*.py"):
        if not {"integrations", "quantizers", "models"} & set(path.parts):
            found |= set(re.findall(r"\b(?:self|model)\.hf_quantizer\.(\w+)", path.read_text(encoding="utf-8")))
    assert {"is_compileable", "is_trainable"} <= found
    assert not [name for name in found if not hasattr(SavedBySparseq(), name)]


@pytest.mark.parametrize("way", ["pack", "load", "from_pretrained"])
def test_packed_models_generate(way: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        eos_token_id=None,
    )
    packed: Any = pack(convert(LlamaForCausalLM(config).eval()))
    save(packed, tmp_path)
    if way != "pack":
        packed = load(tmp_path) if way == "load" else AutoModelForCausalLM.from_pretrained(tmp_path)
    ids = torch.tensor([[4, 7, 9, 3]])
    found = packed.generate(ids, max_new_tokens=3, do_sample=False, pad_token_id=0)
    assert found.shape == (1, 7)
    expected = packed(found[:, :-1]).logits[:, 3:].argmax(-1)
    assert torch.equal(found[:, 4:], expected)


def test_saving_again_leaves_a_models_config_alone(folders: dict[str, Path], tmp_path: Path) -> None:
    loaded: Any = load(folders["packed"])
    before = loaded.config.to_dict()
    assert "quantization_config" not in before
    save(loaded, tmp_path)
    assert loaded.config.to_dict() == before
    assert (tmp_path / CONFIG).read_bytes() == (folders["packed"] / CONFIG).read_bytes()
    assert read_metadata(tmp_path) == read_metadata(folders["packed"])
