"""Single files made to do harm: with their checksums made right, loading ends in a sentence, in no time and memory."""

import shutil
import socket
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from altered import Folder, changed, classifier

from sparseq import convert, load, pack, save
from sparseq.checkpoint import WEIGHTS, is_saved, layer_names, read_metadata, verify
from sparseq.errors import InputError

DENSE = "bert.encoder.layer.0.output.dense"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    save(pack(convert(classifier(), sparsity=0.6, pattern="4x4")), folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "copy"))


def refused(folder: Path, match: str) -> str:
    with pytest.raises(InputError, match=match) as caught:
        load(folder)
    message = str(caught.value)
    assert message.isprintable() and len(message) < 700
    return message


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 200_000, "[" * 5000 + "]" * 5000])
def test_nesting(text: str, folder: Path) -> None:
    parts = Folder.read(folder)
    parts.write(folder, config_text=text)
    refused(folder, "nested|JSON|object")
    parts.write(folder, layout_text=text)
    refused(folder, "nested|JSON|object")
    header = text.encode()
    (folder / WEIGHTS).write_bytes(len(header).to_bytes(8, "little") + header)
    refused(folder, "nested|JSON|object")
    assert not is_saved(folder)


TEXTS = [
    *('{"a": NaN}', '{"a": 1e999}', '{"a": -Infinity}', '{"a": 1, "a": 2}', '{"a": "\ud800"}'),
    *('{"a": ' + "9" * 5000 + "}", "", "\ufeff{}", "{} {}"),
]


@pytest.mark.parametrize("text", TEXTS)
def test_texts_that_are_no_json_object(text: str, folder: Path) -> None:
    parts = Folder.read(folder)
    if text.isprintable():
        parts.write(folder, config_text=text)
        refused(folder, "config")
    parts.write(folder, layout_text=text)
    refused(folder, "layout|version|header.*surrogate")


def test_names_twice(folder: Path) -> None:
    """Two readers may take one each."""
    whole = (folder / WEIGHTS).read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")
    for twice in (
        b'{"__metadata__":{},',
        b'{"%s.bias":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},' % DENSE.encode(),
    ):
        header = twice + whole[8:start].lstrip()[1:]
        (folder / WEIGHTS).write_bytes(len(header).to_bytes(8, "little") + header + whole[start:])
        refused(folder, "stands twice")


LAYER = ("layers", DENSE, "settings")
LAYOUTS: list[tuple[tuple[str, ...], Any, str]] = [
    ((*LAYER, "weight", "block"), [1, 3 * 10**9], "block"),
    ((*LAYER, "weight", "block"), [0, 4], "block"),
    ((*LAYER, "weight", "shape"), [2**31 - 1, 4], "shape|blocks|weights"),
    ((*LAYER, "weight", "kept_blocks"), -(10**15), "kept_blocks"),
    ((*LAYER, "weight", "kept_blocks"), True, "kept_blocks"),
    ((*LAYER, "weight", "bits"), 4.0, "bits"),
    ((*LAYER, "weight", "format"), "dense", "dense|has"),
    ((*LAYER, "dtype"), "load", "dtype"),
    ((*LAYER, "dtype"), "Tensor", "dtype"),
    (("layers", DENSE, "class"), "Linear", "class"),
    (("layers", DENSE, "class"), "PackedEmbedding", "settings|has|is"),
    (("architecture",), "AutoModel", "the model is a AutoModel"),
    (("architecture",), "BertTokenizer", "the model is a BertTokenizer"),
    (("architecture",), "PreTrainedModel", "the model is a PreTrainedModel"),
    (("architecture",), "pipeline", "the model is a pipeline"),
    (("architecture",), "__name__", "the model is a __name__"),
    (("architecture",), "TimmBackbone", "."),
    (("architecture",), "GPT2LMHeadModel", "model_type|is of"),
    (("architecture",), "BertModel", "is of"),
    (("architecture",), "\x1b[31m", "architecture"),
    (("aliases",), {"a": "a"}, "aliases|another name"),
    (("aliases",), {"a": f"{DENSE}.bias", "b": "a"}, "another name"),
    (("aliases",), {f"{DENSE}.bias": f"{DENSE}.values"}, "is a tensor"),
    (("aliases",), {f"{DENSE}.more": f"{DENSE}.bias"}, "does not need"),
    (("sentinels",), [f"{DENSE}.bias"], "sentinel"),
    (("sentinels",), [], "needs|does not need"),
    (("version",), 1, "which is none of"),
    (("version",), 10**9, "update sparseq"),
    (("version",), True, "version"),
]


@pytest.mark.parametrize(("path", "value", "message"), LAYOUTS, ids=lambda value: str(value)[-40:])
def test_layouts(path: tuple[str, ...], value: Any, message: str, folder: Path) -> None:
    parts = Folder.read(folder)
    replace(parts, layout=changed(parts.layout, path, value)).write(folder)
    refused(folder, message)


def test_quantizing_needs_bits(tmp_path: Path) -> None:
    """Each of a training layer's settings is one that it may have, but not together."""
    save(convert(classifier()), tmp_path)
    parts = Folder.read(tmp_path)
    for layer in ("bert.pooler.dense", "bert.embeddings.word_embeddings"):
        replace(parts, layout=changed(parts.layout, ("layers", layer, "settings", "bits"), None)).write(tmp_path)
        refused(tmp_path, "quantizing is true, and bits is null")


CONFIGS: list[tuple[str, Any]] = [
    *((name, 10**9) for name in ("num_hidden_layers", "hidden_size", "vocab_size", "max_position_embeddings")),
    *((name, 60_000) for name in ("num_hidden_layers", "num_labels", "max_position_embeddings", "intermediate_size")),
    ("num_labels", 10**9),
    ("num_attention_heads", -1),
    ("num_attention_heads", 0),
    ("layer_norm_eps", 1e9),
    ("layer_norm_eps", -1.0),
    ("hidden_dropout_prob", 2.0),
    ("hidden_act", "nothing"),
    ("hidden_act", 3),
    ("dtype", "load"),
    ("torch_dtype", "load"),
    ("auto_map", {"AutoConfig": "a--b.C"}),
    ("trust_remote_code", True),
    ("attn_implementation", "someone/kernel"),
    ("_attn_implementation", "someone/kernel"),
    ("use_pretrained_backbone", True),
    ("quantization_config", {"quant_method": "bitsandbytes"}),
    ("model_type", "gpt2"),
    ("architectures", ["AutoModel"]),
    ("id2label", {"x": "y"}),
    ("id2label", [1]),
    ("to_dict", 5),
    ("x", [[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]),
]


@pytest.mark.parametrize(("name", "value"), CONFIGS, ids=lambda value: str(value)[:40])
def test_configs(name: str, value: Any, folder: Path) -> None:
    parts = Folder.read(folder)
    replace(parts, config={**parts.config, name: value}).write(folder)
    refused(folder, "config|model|needs")


def test_a_config_of_the_same_transformers_without_an_entry(folder: Path) -> None:
    """It would be built with the default, which need not be what it was saved with."""
    parts = Folder.read(folder)
    for name in ("hidden_act", "layer_norm_eps", "is_decoder"):
        replace(parts, config={key: value for key, value in parts.config.items() if key != name}).write(folder)
        refused(folder, f"'{name}' is missing")


def test_a_bitmap_that_marks_more_than_is_stored(folder: Path) -> None:
    parts = Folder.read(folder)
    start, end = parts.header[f"{DENSE}.bitmap"]["data_offsets"]
    replace(parts, data=parts.data[:start] + b"\xff" * (end - start) + parts.data[end:]).write(folder)
    refused(folder, "bitmap marks")


def test_truth_values_are_0_or_1(tmp_path: Path) -> None:
    """torch counts a byte of 2 as true in one place and as 2 in another."""
    save(convert(classifier(), sparsity=0.5), tmp_path)
    parts = Folder.read(tmp_path)
    start = parts.header[f"{DENSE}.mask"]["data_offsets"][0]
    replace(parts, data=parts.data[:start] + b"\x02" + parts.data[start + 1 :]).write(tmp_path)
    refused(tmp_path, "bytes other than 0 and 1")


@pytest.mark.parametrize("change", [{"shape": [1]}, {"shape": [2**62, 4]}, {"dtype": "F64"}, {"data_offsets": [0, 4]}])
def test_sizes_that_do_not_fit_the_place(change: dict[str, Any], folder: Path) -> None:
    parts = Folder.read(folder)
    name = f"{DENSE}.bias"
    assert parts.header[name]["shape"] != [1] and parts.header[name]["dtype"] == "F32"
    replace(parts, header={**parts.header, name: {**parts.header[name], **change}}).write(folder)
    refused(folder, f"{name}.*its shape and dtype do not fit its data_offsets")


def test_every_length(folder: Path) -> None:
    """Cut anywhere in the length, at both ends of the header and of the tensors, and at one place of each kilobyte."""
    whole = (folder / WEIGHTS).read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")
    ends = {*range(10), *range(start - 2, start + 3), *range(0, len(whole), 1021), len(whole) - 1}
    for end in sorted(ends):
        (folder / WEIGHTS).write_bytes(whole[:end])
        for read in (load, verify, layer_names, read_metadata):
            with pytest.raises(InputError, match="is truncated or damaged"):
                read(folder)


def test_lengths_that_the_header_cannot_have(folder: Path) -> None:
    whole = (folder / WEIGHTS).read_bytes()
    for length in (0, 1, len(whole), 2**31, 2**63, 2**64 - 1):
        (folder / WEIGHTS).write_bytes(length.to_bytes(8, "little") + whole[8:])
        refused(folder, "is truncated or damaged")
    # A hole of 20 MiB that takes no place on the disk.
    with (folder / WEIGHTS).open("wb") as file:
        file.write((20 * 2**20).to_bytes(8, "little"))
        file.truncate(8 + 20 * 2**20)
    refused(folder, "at most 16,777,216 are read")


def test_loading_never_asks_the_network(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def none(*args: Any, **kwargs: Any) -> None:
        asked.append(args)
        raise OSError("no network")

    for owner, name in ((socket.socket, "connect"), (socket, "getaddrinfo"), (socket, "create_connection")):
        monkeypatch.setattr(owner, name, none)
    with pytest.raises(OSError, match="no network"):  # This is how it would be noticed.
        urllib.request.urlopen("http://127.0.0.1:9")
    assert asked
    asked.clear()
    parts = Folder.read(saved)
    outcomes = []
    for architecture in (
        "BertForSequenceClassification",
        "AutoModel",
        "TimmBackbone",
        "DetrForObjectDetection",
        "Nothing",
    ):
        model_type = {"TimmBackbone": "timm_backbone", "DetrForObjectDetection": "detr"}.get(architecture, "bert")
        more = {"backbone": "resnet50", "use_pretrained_backbone": True} if model_type != "bert" else {}
        config = {**parts.config, "architectures": [architecture], "model_type": model_type, **more}
        folder = tmp_path / architecture
        folder.mkdir()
        layout = {**parts.layout, "architecture": architecture}
        replace(parts, config=config, layout=layout).write(folder)
        try:
            load(folder)
            outcomes.append("loaded")
        except InputError:
            outcomes.append("refused")
    assert outcomes == ["loaded", *["refused"] * 4] and not asked
