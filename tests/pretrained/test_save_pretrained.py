"""`save_pretrained` of transformers writes what `sparseq.save` does, in one file or in shards."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pretrained_models import IDS, MASK, VERSIONS, assert_same, auto_class, model, output

from sparseq.checkpoint import CONFIG, WEIGHTS, load, read_metadata, verify
from sparseq.errors import InputError
from sparseq.nn import convert, dequantize, named_layers, pack


@pytest.mark.parametrize("version", VERSIONS)
def test_the_folder_is_that_of_save(version: str, folders: dict[str, Path], tmp_path: Path) -> None:
    made = VERSIONS[version]()
    made.save_pretrained(tmp_path)
    expected = folders[version]
    assert (tmp_path / CONFIG).read_bytes() == (expected / CONFIG).read_bytes()
    assert read_metadata(tmp_path) == read_metadata(expected)  # the checksum of every tensor among it
    verify(tmp_path)
    assert_same(load(tmp_path), load(expected))
    assert_same(auto_class(tmp_path).from_pretrained(tmp_path), load(expected))


@pytest.mark.parametrize("version", ["training", "training, tied", "packed 4x4", "packed, tied", "packed bf16"])
@pytest.mark.parametrize("place", [None, "cpu"])
def test_shards(version: str, place: Any, tmp_path: Path) -> None:
    made = VERSIONS[version]().eval()
    made.save_pretrained(tmp_path, max_shard_size="10KB")
    assert not (tmp_path / WEIGHTS).exists() and len(list(tmp_path.glob("model-*-of-*.safetensors"))) > 1
    verify(tmp_path)
    assert_same(load(tmp_path), made)
    found = auto_class(tmp_path).from_pretrained(tmp_path, device_map=place)
    assert_same(found, made)
    torch.testing.assert_close(output(found), output(made))


def test_shards_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    VERSIONS["packed"]().save_pretrained(one, max_shard_size="10KB")
    VERSIONS["packed 60 %"]().save_pretrained(other, max_shard_size="10KB")
    first, *_, last = sorted(one.glob("model-*.safetensors"))
    whole = last.read_bytes()
    last.unlink()
    with pytest.raises(InputError, match=f"holds no {last.name}; save or copy the model again"):
        load(one)
    last.write_bytes(first.read_bytes())
    with pytest.raises(InputError, match="which another shard holds too"):
        load(one)
    last.write_bytes(sorted(other.glob("model-*.safetensors"))[-1].read_bytes())
    with pytest.raises(InputError, match="are of different models"):
        load(one)
    last.write_bytes(whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:])
    for read in (load, verify, auto_class(one).from_pretrained):
        with pytest.raises(InputError, match="was altered after it was saved"):
            read(one)
    last.write_bytes(whole)
    (one / last.name.replace(last.name[-17:-12], "99999")).write_bytes(whole)
    with pytest.raises(InputError, match="in 99999 shards"):
        load(one)


def test_the_config_says_how_layers_are_quantized(folders: dict[str, Path]) -> None:
    entry = json.loads((folders["packed 4x4"] / CONFIG).read_text())["quantization_config"]
    assert entry["quant_method"] == "sparseq" and entry["version"] == 2
    names = [name for group in entry["groups"] for name in group["layers"]]
    assert sorted(names) == sorted(name for name, _ in named_layers(load(folders["packed 4x4"])))
    blocks = [group for group in entry["groups"] if group.get("block") == [4, 4]]
    assert len(blocks) == 1 and len(blocks[0]["layers"]) == 12 and blocks[0]["bits"] == 8
    assert len(json.dumps(entry)) < 4096
    text = (folders["packed 4x4"] / CONFIG).read_text()
    assert len(text) < 8192


def test_a_trainers_checkpoint_is_a_folder(tmp_path: Path) -> None:
    from transformers import Trainer, TrainingArguments

    made = VERSIONS["training"]()
    rows = [{"input_ids": IDS[0], "attention_mask": MASK[0], "labels": torch.tensor(1)}] * 4
    settings: Any = {"report_to": "none", "use_cpu": True, "disable_tqdm": True, "lr_scheduler_type": "constant"}
    Trainer(made, TrainingArguments(str(tmp_path), max_steps=2, **settings), train_dataset=rows).train()
    found = auto_class(tmp_path / "checkpoint-2").from_pretrained(tmp_path / "checkpoint-2")
    assert_same(found, made.eval())
    assert_same(load(tmp_path / "checkpoint-2"), made)
    # It goes on from there.
    again = VERSIONS["training"]()
    trainer = Trainer(again, TrainingArguments(str(tmp_path), max_steps=3, **settings), train_dataset=rows)
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert not torch.equal(output(again.eval()), output(made))


SETTINGS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "blocks": {"bits": 8, "sparsity": 0.6, "pattern": "4x4"},
    "four bits, static": {"bits": 4, "activation": "static", "exclude": "*embeddings*"},
}


@pytest.mark.parametrize("settings", SETTINGS)
def test_conversion_while_loading(settings: str, folders: dict[str, Path], tmp_path: Path) -> None:
    from sparseq.hf import SparseqConfig

    own = SETTINGS[settings]
    auto = auto_class(folders["plain"])
    found = auto.from_pretrained(folders["plain"], quantization_config=SparseqConfig(**own))
    assert_same(found, convert(model(), **own))
    assert found.is_quantized and found.hf_quantizer.is_qat_trainable
    assert found.config.quantization_config.to_dict() == {"quant_method": "sparseq", **own}
    found.save_pretrained(tmp_path)
    assert_same(auto.from_pretrained(tmp_path), found)
    assert "quantization_config" not in json.loads((folders["plain"] / CONFIG).read_text())


def test_wrong_settings_are_refused_before_loading() -> None:
    from sparseq.hf import SparseqConfig

    with pytest.raises(InputError, match="no setting 'bit': the settings are bits, "):
        SparseqConfig(bit=8)
    with pytest.raises(InputError, match="bits is 5"):
        SparseqConfig(bits=5)
    with pytest.raises(InputError, match=r"its sparsity is at most 0\.5"):
        SparseqConfig(pattern="2:4", sparsity=0.6)


@pytest.mark.parametrize("version", [name for name in VERSIONS if "encoder" not in name])
def test_dequantized(version: str, folders: dict[str, Path], tmp_path: Path) -> None:
    """Each weight, in fp64, is what the layer multiplies by (packed), or its own masked one (training)."""
    found = auto_class(folders[version]).from_pretrained(folders[version])
    expected: dict[str, torch.Tensor] = {}
    for name, layer in named_layers(found):
        if "packed" in version:
            scale = layer.scale
            values = layer.quantized_values().double()
            expected[name] = values if scale is None else values * scale.double()[:, None]
        else:
            expected[name] = layer.weight.detach().double() * (1.0 if layer.mask is None else layer.mask.double())
    found.save_pretrained(tmp_path / "before")
    plain = found.dequantize()
    assert not any(True for _ in named_layers(plain))
    for name, weight in expected.items():
        own = plain.get_submodule(name).weight
        assert isinstance(own, torch.nn.Parameter)
        torch.testing.assert_close(
            own.detach().double(), weight, rtol=2**-8 if own.dtype == torch.bfloat16 else 1e-6, atol=0
        )
    assert not hasattr(plain.config, "quantization_config") and not plain.is_quantized
    plain.save_pretrained(tmp_path)
    again = auto_class(tmp_path).from_pretrained(tmp_path)
    assert_same(again, plain)
    with pytest.raises(InputError, match="no sparseq layers"):
        dequantize(plain)


def test_dequantized_layers_share_what_they_shared() -> None:
    for version in ("training, tied", "packed, tied"):
        plain = VERSIONS[version]().dequantize()
        table = plain.bert.embeddings.word_embeddings
        assert plain.cls.predictions.decoder.weight is table.weight
        assert plain.cls.predictions.decoder.bias is plain.cls.predictions.bias


@pytest.mark.parametrize("version", ["training, tied", "packed, tied"])
def test_a_model_that_was_dequantized_by_the_function_is_saved_as_a_plain_one(version: str, tmp_path: Path) -> None:
    plain: Any = dequantize(VERSIONS[version]())
    assert not hasattr(plain, "hf_quantizer") and not hasattr(plain.bert, "hf_quantizer")
    plain.save_pretrained(tmp_path)
    assert "sparseq" not in read_metadata(tmp_path)
    assert_same(auto_class(tmp_path).from_pretrained(tmp_path), plain.eval())


def test_hooks_on_packed_layers_are_not_lost() -> None:
    packed = VERSIONS["packed"]()
    packed.classifier.register_full_backward_hook(lambda *given: None)
    with pytest.raises(InputError, match="'classifier' has hooks, which would be lost"):
        dequantize(packed)


def test_a_single_layer_is_dequantized() -> None:
    layer = torch.nn.Linear(8, 4)
    packed = pack(convert(torch.nn.Sequential(layer)))[0]
    found: Any = dequantize(packed)
    assert type(found) is torch.nn.Linear
    x = torch.randn(3, 8)
    torch.testing.assert_close(found(x), packed(x), atol=0.02, rtol=0.02)


@pytest.mark.parametrize("version", ["training", "packed"])
def test_sentence_transformers(version: str, tmp_path: Path, tiny_tokenizer: Any) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers", reason="needs sentence-transformers")
    model(head="Model", vocab_size=len(tiny_tokenizer)).save_pretrained(tmp_path / "plain")
    tiny_tokenizer.save_pretrained(tmp_path / "plain")
    embedder = convert(sentence_transformers.SentenceTransformer(str(tmp_path / "plain"), device="cpu"))
    made: Any = pack(embedder) if version == "packed" else embedder
    made.save_pretrained(str(tmp_path / version))
    found = sentence_transformers.SentenceTransformer(str(tmp_path / version), device="cpu")
    assert [type(layer) for _, layer in named_layers(found)] == [type(layer) for _, layer in named_layers(made)]
    texts = ["the film was good", "a bad film"]
    torch.testing.assert_close(torch.from_numpy(found.encode(texts)), torch.from_numpy(made.encode(texts)))
