"""Saving and loading: exact round trips, ties, damage of every kind, and being killed in between."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from altered import Folder
from rounding import assert_same_logits
from safetensors import safe_open
from torch import Tensor, nn

from sparseq import checkpoint
from sparseq.checkpoint import WEIGHTS, load, save
from sparseq.errors import InputError
from sparseq.nn import PackedLinear, QuantEmbedding, QuantSparseLinear, convert, pack

IDS = torch.tensor([[2, 7, 9, 3, 0], [2, 11, 3, 0, 0]])


def transformer(family: str, head: str, **changes: Any) -> Any:
    import transformers

    torch.manual_seed(0)
    names = {"hidden_size": "dim", "intermediate_size": "hidden_dim"} if family == "DistilBert" else {}
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    shape = {names.get(key, key): value for key, value in shape.items()}
    config = getattr(transformers, f"{family}Config")(**{"vocab_size": 60, "pad_token_id": 0, **shape, **changes})
    return getattr(transformers, f"{family}For{head}")(config).eval()


def classifier(**changes: Any) -> Any:
    return transformer("Bert", "SequenceClassification", **changes)


def masked_lm() -> Any:
    return transformer("Bert", "MaskedLM")


def assert_same(loaded: nn.Module, saved: nn.Module) -> None:
    """Every parameter and buffer, those that are not stored too, equal in name, dtype and bits."""
    mine = dict([*loaded.named_parameters(remove_duplicate=False), *loaded.named_buffers(remove_duplicate=False)])
    theirs = dict([*saved.named_parameters(remove_duplicate=False), *saved.named_buffers(remove_duplicate=False)])
    assert set(mine) == set(theirs)
    for name, tensor in mine.items():
        assert type(tensor) is type(theirs[name]) and tensor.dtype == theirs[name].dtype, name
        assert not tensor.is_meta and torch.equal(tensor, theirs[name]), name
        assert tensor.requires_grad == theirs[name].requires_grad, name


def files(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


VERSIONS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "plain": lambda model: model,
    "bf16": lambda model: model.bfloat16(),
    "training": lambda model: convert(model, sparsity=0.5, scale="lsq"),
    "training, 4x4": lambda model: convert(model, sparsity=0.5, pattern="4x4"),
    "bf16 training": lambda model: convert(model.bfloat16(), sparsity=0.5),
    "packed": lambda model: pack(convert(model)),
    "packed 60 %": lambda model: pack(convert(model, sparsity=0.6)),
    "packed 4x4": lambda model: pack(convert(model, sparsity=0.6, pattern="4x4")),
    "packed int4 2:4": lambda model: pack(convert(model, bits=4, sparsity=0.5, pattern="2:4", prune_embeddings=True)),
    "packed int16": lambda model: pack(convert(model, bits=16)),
    "packed bf16": lambda model: pack(convert(model.bfloat16(), sparsity=0.6)),
    "pruned only, packed": lambda model: pack(convert(model, bits=None, sparsity=0.6)),
}


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


def test_tied_weights_stay_tied(tmp_path: Path) -> None:
    model = masked_lm()
    for version in (model, convert(model, sparsity=0.5)):
        save(version, tmp_path)
        with safe_open(tmp_path / WEIGHTS, framework="pt") as file:
            assert "cls.predictions.decoder.weight" not in file.keys()  # noqa: SIM118 (not a dict)
        loaded: Any = load(tmp_path)
        assert_same(loaded, version)
        assert loaded.cls.predictions.decoder.weight is loaded.bert.embeddings.word_embeddings.weight
        assert loaded.cls.predictions.decoder.bias is loaded.cls.predictions.bias
        assert len(list(loaded.parameters())) == len(list(version.parameters()))
    assert isinstance(loaded.bert.embeddings.word_embeddings, QuantEmbedding)


@pytest.mark.parametrize("count", [2, 4, 7])
@pytest.mark.parametrize("quantized", [False, True])
def test_many_tied_layers_are_stored_once(count: int, quantized: bool, tmp_path: Path) -> None:
    def tied() -> Any:
        layers = nn.Sequential(*(nn.Linear(64, 64) for _ in range(count)))
        for layer in layers:
            layer.weight = layers[0].weight
        return layers

    model = convert(tied()) if quantized else tied()
    file = save(model, tmp_path)
    held = checkpoint.contents(model)
    assert held.aliases == {f"{i}.weight": "0.weight" for i in range(1, count)}
    assert file.stat().st_size < 4 * 64 * 64 + count * (4 * 64 + 1500)
    loaded: Any = load(tmp_path, tied())
    assert all(layer.weight is loaded[0].weight for layer in loaded)
    assert_same(loaded, model.eval())


def test_untied_weights_that_are_equal_stay_apart(tmp_path: Path) -> None:
    model = nn.Sequential(nn.LayerNorm(4), nn.LayerNorm(4))
    save(model, tmp_path)
    loaded: Any = load(tmp_path, nn.Sequential(nn.LayerNorm(4), nn.LayerNorm(4)))
    assert loaded[0].weight is not loaded[1].weight


def test_packed_masked_lm(tmp_path: Path) -> None:
    model = pack(convert(masked_lm()))
    save(model, tmp_path)
    loaded = load(tmp_path)
    assert_same(loaded, model)
    with torch.no_grad():
        assert_same_logits(loaded(IDS).logits, model(IDS).logits)


def test_shared_buffers_and_modules(tmp_path: Path) -> None:
    shared = QuantSparseLinear(4, 4)
    model: Any = pack(nn.Sequential(shared, nn.ReLU(), shared))
    assert model[0] is model[2]
    file = save(model, tmp_path)
    loaded: Any = load(tmp_path, nn.Sequential(again := nn.Linear(4, 4), nn.ReLU(), again))
    assert loaded[0] is loaded[2]
    assert_same(loaded, model)
    with safe_open(file, framework="pt") as opened:
        assert {name.split(".")[0] for name in opened.keys()} == {"0"}  # noqa: SIM118 (not a dict)


def test_views_of_one_storage_are_stored_apart(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    model = nn.Module()
    for name, view in {"whole": base, "turned": base.t(), "part": base[1:], "scalar": base[0, 0]}.items():
        model.register_buffer(name, view)
    save(model, tmp_path)
    skeleton = nn.Module()
    for name, tensor in model.named_buffers():
        skeleton.register_buffer(name, torch.empty(tensor.shape))
    assert_same(load(tmp_path, skeleton), model)


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


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    save(pack(convert(classifier(), sparsity=0.6)), folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "copy"))


def sentence(folder: Path, **arguments: Any) -> str:
    with pytest.raises(InputError) as caught:
        load(folder, **arguments)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 400
    return message


def test_missing(folder: Path, tmp_path: Path) -> None:
    assert "there is no folder" in sentence(tmp_path / "nowhere")
    (folder / "config.json").unlink()
    assert "no config.json" in sentence(folder)
    (folder / WEIGHTS).unlink()
    assert f"holds no {WEIGHTS}" in sentence(folder)


@pytest.mark.parametrize("kept", [0, 4, 8, 100, 0.3, 0.99, -1])
def test_truncated(folder: Path, kept: float) -> None:
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[: int(kept * len(whole)) if isinstance(kept, float) else kept])
    assert "is truncated or damaged" in sentence(folder)


def test_longer(folder: Path) -> None:
    with (folder / WEIGHTS).open("ab") as file:
        file.write(b"\0")
    assert "is truncated or damaged" in sentence(folder)


def test_a_flipped_bit_anywhere(folder: Path) -> None:
    whole = (folder / WEIGHTS).read_bytes()
    header = int.from_bytes(whole[:8], "little")
    draw = random.Random(0)
    places = [*range(8), *draw.sample(range(8, 8 + header), 150), *draw.sample(range(8 + header, len(whole)), 50)]
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << draw.randrange(8)
        (folder / WEIGHTS).write_bytes(damaged)
        message = sentence(folder)
        assert WEIGHTS in message, message
    (folder / WEIGHTS).write_bytes(whole)
    load(folder)


def test_foreign_files(folder: Path) -> None:
    classifier().save_pretrained(folder)
    assert "was not written by sparseq.save" in sentence(folder)
    (folder / WEIGHTS).write_bytes(b"this is no such file at all, but long enough to have a header")
    assert "is truncated or damaged" in sentence(folder)


def test_a_newer_format(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint.state, "FORMAT_VERSION", 3)
    save(classifier(), folder)
    monkeypatch.undo()
    assert "has format version 3, this sparseq reads 1 to 2; update sparseq" in sentence(folder)


def test_a_config_that_was_altered(folder: Path) -> None:
    config = folder / "config.json"
    text = config.read_text()
    for altered in (text.replace('"gelu"', '"relu"'), text.replace("1e-12", "1e-5"), text + " ", "[", ""):
        config.write_text(altered)
        assert "config.json was altered after it was saved (sha256 mismatch)" in sentence(folder)
        with pytest.raises(InputError, match="sha256 mismatch"):
            checkpoint.verify(folder)
    config.unlink()
    with pytest.raises(InputError, match="or is missing"):
        checkpoint.verify(folder)
    config.write_text(text)
    checkpoint.verify(folder)
    load(folder)


def test_a_config_that_does_not_fit(folder: Path) -> None:
    """Its checksum was made right again."""

    def altered(**changes: Any) -> str:
        parts = Folder.read(folder)
        replace(parts, config={**parts.config, **changes}).write(folder)
        message = sentence(folder)
        parts.write(folder)
        return message

    assert "is 500 x 32 (num_embeddings x embedding_dim) in the model, and 512 x 32 in" in altered(
        max_position_embeddings=500
    )
    assert "the model has no module 'bert.encoder.layer.1" in altered(num_hidden_layers=1)
    assert "does not hold 'bert.encoder.layer.2" in altered(num_hidden_layers=3)
    assert "embeddings' is 512 x 64 (num_embeddings x embedding_dim) in the model" in altered(hidden_size=64)
    for nonsense in ({"num_attention_heads": 5}, {"hidden_act": "cube"}, {"hidden_dropout_prob": "none"}):
        assert "config.json cannot be read as BertForSequenceClassification's" in altered(**nonsense)
    assert "'num_hidden_layers' is 1000000000, more than any model has" in altered(num_hidden_layers=10**9)
    assert "describes a model that is larger than the tensors in the file" in altered(num_hidden_layers=60000)
    assert "describes a model that is larger than the tensors in the file" in altered(hidden_size=2**20)
    assert "'dtype' is 'load', and must be one of float32" in altered(dtype="load")
    assert "model_type is 'gpt2', and that of BertForSequenceClassification is bert" in altered(model_type="gpt2")
    assert "is of ['AutoModel'], and the model is a BertFor" in altered(architectures=["AutoModel"])
    load(folder)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_not_finite(tmp_path: Path, bad: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused in saving, before anything is written; and in loading what another program saved."""
    model = classifier()
    with torch.no_grad():
        model.bert.encoder.layer[1].output.dense.bias[3] = bad
    with pytest.raises(InputError, match=r"'bert\.encoder\.layer\.1\.output\.dense\.bias' holds"):
        save(model, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    monkeypatch.setattr("sparseq.checkpoint.write.check_finite", lambda model: None)
    save(model, tmp_path)
    assert "'bert.encoder.layer.1.output.dense.bias' holds" in sentence(tmp_path)


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


def test_a_failed_save_leaves_the_old_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError("No space left on device")

    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    monkeypatch.setattr(checkpoint.write, "save_file", full)
    with pytest.raises(OSError, match="No space"):
        save(classifier(num_labels=3), folder)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


KILLED = """
import sys
from torch import nn
from sparseq.checkpoint import save
print("ready", flush=True)
while True:
    save(nn.Sequential(*(nn.Linear(256, 256) for _ in range(8))), sys.argv[1])
"""


@pytest.mark.slow
def test_killed_while_saving(tmp_path: Path) -> None:
    """Whenever the writer is killed, the folder loads, and the next save clears what was left."""
    target = tmp_path / "model"
    draw = random.Random(0)

    def skeleton() -> nn.Module:
        return nn.Sequential(*(nn.Linear(256, 256) for _ in range(8)))

    save(skeleton(), target)
    for _ in range(2):
        writer = subprocess.Popen([sys.executable, "-c", KILLED, str(target)], stdout=subprocess.PIPE)
        assert writer.stdout is not None and writer.stdout.readline() == b"ready\n"
        time.sleep(draw.uniform(0.0, 0.2))
        os.kill(writer.pid, signal.SIGKILL)
        writer.communicate()
        load(target, skeleton())
    save(skeleton(), target)
    assert files(target) == [WEIGHTS]


def test_bytes_on_disk_hold_no_pickle(saved: Path) -> None:
    with safe_open(saved / WEIGHTS, framework="pt") as file:
        tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    held = checkpoint.contents(load(saved))
    assert set(held.stored()) == set(tensors) and not held.aliases
    assert json.loads(checkpoint.read_metadata(saved)["sparseq"])["layers"] == held.layers
