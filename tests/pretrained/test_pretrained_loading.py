"""transformers' own loaders, with sparseq imported: the same model as `sparseq.load` gives."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from pretrained_models import IDS, MASK, VERSIONS, assert_same, auto_class, model, output
from safetensors.torch import load_file
from torch import nn

from sparseq.checkpoint import CONFIG, WEIGHTS, load, save
from sparseq.errors import InputError
from sparseq.nn import Packed, named_layers


@pytest.mark.parametrize("version", VERSIONS)
def test_with_sparseq_the_model_is_that_of_load(version: str, folders: dict[str, Path]) -> None:
    folder = folders[version]
    state = torch.get_rng_state()
    found = auto_class(folder).from_pretrained(folder)
    assert torch.equal(torch.get_rng_state(), state)  # nothing was initialized at random
    expected = load(folder)
    assert_same(found, expected)
    torch.testing.assert_close(output(found), output(expected))
    torch.testing.assert_close(output(found), output(VERSIONS[version]().eval()))


@pytest.mark.parametrize("version", ["training", "training, learned and static", "packed 60 %", "packed static"])
def test_the_encoder_alone(version: str, folders: dict[str, Path]) -> None:
    from transformers import AutoModel

    found: Any = AutoModel.from_pretrained(folders[version])
    assert_same(found, load(folders[version]).bert)  # type: ignore[arg-type]


@pytest.mark.parametrize("version", ["training, encoder alone", "packed, encoder alone"])
def test_a_new_head_on_a_saved_encoder(version: str, folders: dict[str, Path]) -> None:
    from transformers import AutoModelForTokenClassification

    found, info = AutoModelForTokenClassification.from_pretrained(
        folders[version], num_labels=3, output_loading_info=True
    )
    assert set(info["missing_keys"]) == {"classifier.weight", "classifier.bias"} and not info["mismatched_keys"]
    assert type(found.classifier) is nn.Linear and found.classifier.weight.std() > 0
    expected = load(folders[version])
    del expected.pooler  # this class has none
    found.bert.pooler = None
    expected.pooler = None  # type: ignore[assignment]
    assert_same(found.bert, expected)


@pytest.mark.parametrize("version", ["training", "packed"])
def test_the_report_names_nothing_that_is_as_it_should_be(version: str, folders: dict[str, Path]) -> None:
    _, info = auto_class(folders[version]).from_pretrained(folders[version], output_loading_info=True)
    assert {key: value for key, value in info.items() if value} == {}


@pytest.mark.parametrize("version", ["training", "packed 60 %"])
def test_pipeline(version: str, folders: dict[str, Path]) -> None:
    from transformers import AutoTokenizer, pipeline

    (found,) = pipeline("text-classification", str(folders[version]))("the film was good")
    encoded = AutoTokenizer.from_pretrained(folders[version])("the film was good", return_tensors="pt")
    with torch.no_grad():
        logits = load(folders[version])(**encoded).logits
    assert found["score"] == pytest.approx(float(logits.softmax(-1).max()), abs=1e-5)


@pytest.mark.parametrize("place", ["cpu", "auto", {"": "cpu"}], ids=str)
@pytest.mark.parametrize("version", ["training", "training, tied", "packed", "packed, tied"])
def test_device_map(version: str, place: Any, folders: dict[str, Path]) -> None:
    if place == "auto" and torch.cuda.is_available():
        pytest.skip("the model is placed on the GPU")
    found = auto_class(folders[version]).from_pretrained(folders[version], device_map=place)
    assert_same(found, load(folders[version]))


@pytest.mark.parametrize("version", ["training", "packed"])
def test_offloading_is_refused(version: str, folders: dict[str, Path], tmp_path: Path) -> None:
    places: dict[str, Any] = {"bert": "cpu", "classifier": "disk", "dropout": "cpu"}
    with pytest.raises(InputError, match="are not offloaded"):
        auto_class(folders[version]).from_pretrained(folders[version], device_map=places, offload_folder=tmp_path)


@pytest.mark.parametrize("dtype", ["auto", "float32", torch.float32])
@pytest.mark.parametrize("version", ["training", "packed"])
def test_the_dtype_of_the_file(version: str, dtype: Any, folders: dict[str, Path]) -> None:
    found = auto_class(folders[version]).from_pretrained(folders[version], dtype=dtype)
    assert_same(found, load(folders[version]))


@pytest.mark.parametrize("version", ["training", "training, bf16", "packed", "packed bf16"])
def test_another_dtype_is_cast_to_as_by_to(version: str, folders: dict[str, Path]) -> None:
    dtype = torch.float32 if "bf16" in version else torch.bfloat16
    found = auto_class(folders[version]).from_pretrained(folders[version], dtype=dtype)
    assert found.dtype == dtype and found.config.dtype == dtype
    assert_same(found, load(folders[version]).to(dtype))


def test_a_class_that_does_not_fit_is_refused(folders: dict[str, Path]) -> None:
    for version in ("training", "packed"):
        for ignored in (False, True):
            with pytest.raises(InputError, match=r"'classifier' is 3 x 32 .* in the model, and 2 x 32 in"):
                auto_class(folders[version]).from_pretrained(
                    folders[version], num_labels=3, ignore_mismatched_sizes=ignored
                )


@pytest.mark.parametrize("version", ["training", "packed"])
def test_altered_folders_are_refused(version: str, folders: dict[str, Path], tmp_path: Path) -> None:
    auto, copy = auto_class(folders[version]), tmp_path / "copy"
    shutil.copytree(folders[version], copy)
    whole = bytearray((copy / WEIGHTS).read_bytes())
    whole[-3] ^= 1
    (copy / WEIGHTS).write_bytes(whole)
    with pytest.raises(InputError, match="was altered after it was saved"):
        auto.from_pretrained(copy)
    shutil.copy(folders[version] / WEIGHTS, copy / WEIGHTS)
    text = (copy / CONFIG).read_text()
    (copy / CONFIG).write_text(text.replace('"layer_norm_eps": 1e-12', '"layer_norm_eps": 1e-05'))
    with pytest.raises(InputError, match="was altered after it was saved"):
        auto.from_pretrained(copy)
    (copy / CONFIG).write_text(text)
    model().save_pretrained(tmp_path / "foreign")
    shutil.copy(tmp_path / "foreign" / WEIGHTS, copy / WEIGHTS)
    with pytest.raises(InputError, match=r"was not written by sparseq\.save"):
        auto.from_pretrained(copy)


def test_training_layers_are_trained_and_saved_as_after_convert(folders: dict[str, Path], tmp_path: Path) -> None:
    from transformers import Trainer, TrainingArguments

    found = auto_class(folders["training"]).from_pretrained(folders["training"])
    rows = [{"input_ids": IDS[0], "attention_mask": MASK[0], "labels": torch.tensor(1)}] * 4
    arguments = TrainingArguments(str(tmp_path), max_steps=2, report_to="none", use_cpu=True, disable_tqdm=True)
    before = output(found.eval())
    trainer = Trainer(found, arguments, train_dataset=rows)
    trainer.train()
    assert not torch.allclose(output(found.eval()), before, atol=1e-6)
    again = auto_class(folders["training"]).from_pretrained(folders["training"])
    again.load_state_dict(load_file(tmp_path / "checkpoint-2" / WEIGHTS))
    torch.testing.assert_close(output(again), output(found))
    save(found, tmp_path / "saved")
    assert_same(load(tmp_path / "saved"), found)


@pytest.mark.parametrize("version", ["training", "packed"])
def test_the_files_own_tensors_load_into_layers_of_their_kind(version: str, folders: dict[str, Path]) -> None:
    found = VERSIONS[version]()
    with torch.no_grad():
        for tensor in found.state_dict().values():
            tensor.zero_()
    found.load_state_dict(load_file(folders[version] / WEIGHTS))
    assert_same(found.eval(), load(folders[version]))
    assert all(isinstance(layer, Packed) == (version == "packed") for _, layer in named_layers(found))
