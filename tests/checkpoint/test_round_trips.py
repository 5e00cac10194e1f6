"""What `save` wrote, `load` gives back: every tensor, the class, and the outputs."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rounding import assert_same_logits
from safetensors import safe_open
from saved_models import IDS, VERSIONS, assert_same, classifier, files, masked_lm, sentence, transformer
from torch import Tensor, nn

from sparseq import checkpoint
from sparseq.checkpoint import WEIGHTS, load, save
from sparseq.errors import InputError
from sparseq.nn import PackedLinear, QuantSparseLinear, convert, pack


@pytest.mark.parametrize("version", VERSIONS)
def test_round_trip(version: str, tmp_path: Path) -> None:
    model = VERSIONS[version](classifier()).eval()
    save(model, tmp_path)
    assert files(tmp_path) == ["config.json", WEIGHTS]
    loaded = load(tmp_path)
    assert type(loaded) is type(model) and not any(module.training for module in loaded.modules())
    assert_same(loaded, model)
    mask = (IDS != 0).long()
    with torch.no_grad():
        assert_same_logits(loaded(IDS, attention_mask=mask).logits, model(IDS, attention_mask=mask).logits)


@pytest.mark.parametrize("family", ["DistilBert", "Roberta"])
def test_other_families(family: str, tmp_path: Path) -> None:
    for version in ("plain", "training", "packed 60 %"):
        model = VERSIONS[version](transformer(family, "SequenceClassification")).eval()
        save(model, tmp_path)
        loaded = load(tmp_path)
        assert_same(loaded, model)
        with torch.no_grad():
            assert_same_logits(loaded(IDS).logits, model(IDS).logits)


def test_training_goes_on_after_loading(tmp_path: Path) -> None:
    model = convert(classifier(), sparsity=0.5, scale="lsq", pattern="4x4").eval()
    save(model, tmp_path)
    for version in (model, load(tmp_path)):
        optimizer = torch.optim.SGD(version.parameters(), 0.1)
        version(IDS, labels=torch.tensor([0, 1])).loss.backward()
        optimizer.step()
        save(version, tmp_path / str(id(version)))
    first, second = (load(tmp_path / name) for name in files(tmp_path) if name.isdigit())
    assert_same(first, second)


def test_packed_masked_lm(tmp_path: Path) -> None:
    model = pack(convert(masked_lm()))
    save(model, tmp_path)
    loaded = load(tmp_path)
    assert_same(loaded, model)
    with torch.no_grad():
        assert_same_logits(loaded(IDS).logits, model(IDS).logits)


def test_skeleton(tmp_path: Path) -> None:
    def skeleton() -> nn.Sequential:
        return nn.Sequential(nn.Embedding(6, 8), nn.Linear(8, 4), nn.BatchNorm1d(4))

    model: Any = pack(convert(skeleton()))
    save(model, tmp_path)
    assert files(tmp_path) == [WEIGHTS]
    given = skeleton()
    loaded: Any = load(tmp_path, given)
    assert loaded is given and isinstance(loaded[1], PackedLinear)
    assert_same(loaded, model)
    with pytest.raises(InputError, match=r"no config\.json.*pass load\(\) the model"):
        load(tmp_path)
    with pytest.raises(InputError, match="the model has no module '1', which"):
        load(tmp_path, nn.Sequential(nn.Embedding(6, 8)))
    with pytest.raises(InputError, match=r"holds '2\.\w+', which the model does not have"):
        load(tmp_path, skeleton()[:2])
    with pytest.raises(InputError, match=r"does not hold '3\.weight', which the model needs"):
        load(tmp_path, skeleton().append(nn.Linear(4, 4)))
    with pytest.raises(InputError, match=r"'2\.weight' has shape \(4,\) in .* but \(5,\) in the model"):
        load(tmp_path, nn.Sequential(nn.Embedding(6, 8), nn.Linear(8, 4), nn.BatchNorm1d(5)))


def test_a_model_that_is_one_layer(tmp_path: Path) -> None:
    layer = QuantSparseLinear(8, 4, bits=4)
    save(layer, tmp_path / "training")
    save(layer.pack(), tmp_path / "packed")
    assert_same(load(tmp_path / "training"), layer)
    x = torch.randn(2, 8)
    assert torch.equal(load(tmp_path / "packed")(x), layer.pack()(x))


def test_transformers_reads_a_plain_folder(tmp_path: Path) -> None:
    from transformers import AutoModelForMaskedLM

    model = masked_lm()
    save(model, tmp_path)
    assert_same(AutoModelForMaskedLM.from_pretrained(tmp_path), model)


def test_loading_draws_no_random_numbers_and_is_fast(tmp_path: Path) -> None:
    """Nothing is initialised: the generator stays where it was."""
    save(convert(classifier()), tmp_path)
    state = torch.get_rng_state()
    load(tmp_path)
    assert torch.equal(torch.get_rng_state(), state)


def test_tokenizer_metadata_and_what_is_told_of_a_folder(tmp_path: Path) -> None:
    from transformers import AutoTokenizer, BertTokenizer

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b"]
    tokenizer = BertTokenizer(vocab={word: i for i, word in enumerate(words)})
    save(classifier(), tmp_path / "plain", tokenizer, metadata={"task": "sst2"})
    assert checkpoint.read_metadata(tmp_path / "plain")["task"] == "sst2"
    assert AutoTokenizer.from_pretrained(tmp_path / "plain")("a b")["input_ids"] == [2, 5, 6, 3]
    assert checkpoint.is_saved(tmp_path / "plain") and checkpoint.layer_names(tmp_path / "plain") == ()
    save(convert(classifier()), tmp_path / "training")
    assert "bert.encoder.layer.1.output.dense" in checkpoint.layer_names(tmp_path / "training")
    classifier().save_pretrained(tmp_path / "foreign")
    assert not checkpoint.is_saved(tmp_path / "foreign") and not checkpoint.is_saved(tmp_path / "nowhere")


def test_config_names_the_class_and_keeps_the_models_own(tmp_path: Path) -> None:
    model = classifier(id2label={0: "no", 1: "yes"}).bfloat16()
    before = model.config.to_dict()
    save(model, tmp_path)
    assert model.config.to_dict() == before
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["architectures"] == ["BertForSequenceClassification"] and written["dtype"] == "bfloat16"
    assert load(tmp_path).config.id2label == {0: "no", 1: "yes"}  # type: ignore[union-attr]


def test_a_causal_mask_is_no_fault(tmp_path: Path) -> None:
    """A model's own buffers may hold infinity."""

    def masked() -> nn.Module:
        model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        model.register_buffer("causal", torch.full((4, 4), float("-inf")).triu(1))
        return model

    for model in (masked(), convert(masked()), pack(convert(masked()))):
        save(model, tmp_path)
        assert_same(load(tmp_path, masked()), model.eval())


def test_what_cannot_be_saved(tmp_path: Path) -> None:
    class Special(QuantSparseLinear):
        pass

    with pytest.raises(InputError, match="0 is a Special, a subclass that a file cannot name"):
        save(nn.Sequential(Special(4, 4)), tmp_path)
    with pytest.raises(InputError, match="weight is on the meta device"):
        save(nn.Linear(2, 2, device="meta"), tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="it is a file or a link to none, and a folder is needed"):
        save(nn.Linear(2, 2), tmp_path / "file")
    assert files(tmp_path) == ["file"]


def test_a_custom_class_needs_a_skeleton(tmp_path: Path) -> None:
    from transformers import BertForSequenceClassification

    class MyBert(BertForSequenceClassification):
        pass

    model = MyBert(classifier().config)
    save(model, tmp_path)
    assert "has no MyBert; pass load() the model to fill" in sentence(tmp_path)
    assert_same(load(tmp_path, MyBert(model.config)), model.eval())


def test_bytes_on_disk_hold_no_pickle(tmp_path: Path) -> None:
    save(pack(convert(classifier(), sparsity=0.6)), tmp_path)
    with safe_open(tmp_path / WEIGHTS, framework="pt") as file:
        tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    held = checkpoint.contents(load(tmp_path))
    assert set(held.stored()) == set(tensors) and not held.aliases
    assert json.loads(checkpoint.read_metadata(tmp_path)["sparseq"])["layers"] == held.layers
