"""What is not exported, and that nothing is left behind then."""

import sys
from pathlib import Path

import pytest
import torch
from onnx_runs import Tagger, tagger_inputs
from torch import nn

from sparseq import InputError, convert, export_onnx, pack
from sparseq.onnx import OnnxModel, files


def tagger(**settings):
    return convert(Tagger(), **settings)


def with_hook():
    model = tagger()
    model.head.register_forward_hook(lambda *_: None)
    return model


def opaque():
    model = tagger()
    model.forward = lambda tokens, scale: model.up(model.embed(tokens)) * float(tokens.sum().tolist())
    return model


REFUSED = {
    "another form": (tagger, {"form": "int8"}, "form is 'int8': it must be one of 'integer', 'qdq'"),
    "a plain model": (Tagger, {}, "no layers of sparseq's to export: call sparseq.convert first"),
    "16 bits": (lambda: tagger(bits=16), {}, "layer 'up' has 16 bits, .* convert with bits=8 or bits=4"),
    "bf16": (lambda: pack(tagger().bfloat16()), {}, "is bfloat16, and models are exported in fp32: call .float()"),
    "a hook": (with_hook, {}, "layer 'head' has a hook"),
    "no example": (
        tagger,
        {"inputs": None},
        "Tagger is no transformers model that reads input_ids: give example inputs",
    ),
    "an empty example": (tagger, {"inputs": {}}, "there are no example inputs"),
    "a list": (tagger, {"inputs": {"tokens": [1, 2]}}, "the example input 'tokens' is a list: give a tensor"),
    "one row": (
        tagger,
        {"inputs": tagger_inputs(1, 8)},
        r"'tokens' has the shape \(1, 8\): its batch \(axis 0\) must be 2",
    ),
    "one token": (tagger, {"inputs": tagger_inputs(2, 1)}, r"its length \(axis 1\) must be 2 at least"),
    "pairs of dynamic activations": (tagger, {"form": "qdq"}, "give batches to find it from, convert with activation="),
    "batches without use": (tagger, {"batches": []}, "batches are for form 'qdq'"),
    "no batches": (tagger, {"form": "qdq", "batches": []}, "the batches do not reach layer 'up'"),
    "its own metadata": (
        tagger,
        {"metadata": {"sparseq.form": "x"}},
        "an entry 'sparseq.form', which is the file's own",
    ),
    "no ending": (tagger, {"path": "model.bin"}, "give a file that ends in .onnx"),
    "a folder": (tagger, {"path": "folder.onnx"}, "it is a folder, and a file is needed"),
    "within a file": (tagger, {"path": "file/model.onnx"}, "file is no folder"),
    "static without a scale": (lambda: tagger(activation="static"), {}, "no scale yet"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_it_is_refused_in_a_sentence(kind, tmp_path):
    make, arguments, message = REFUSED[kind]
    arguments = dict(arguments)
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "file").write_text("")
    before = sorted(tmp_path.rglob("*"))
    model, path = make(), tmp_path / arguments.pop("path", "new/model.onnx")
    arguments.setdefault("inputs", tagger_inputs(2, 8))
    with pytest.raises(InputError, match=message):
        export_onnx(model, path, **arguments)
    assert sorted(tmp_path.rglob("*")) == before


def test_batches_of_nan(tmp_path):
    model, batch = convert(nn.Sequential(nn.Linear(4, 3))), {"input": torch.full((2, 4), torch.nan)}
    with pytest.raises(InputError, match="the batches give NaN or Inf in the input of layer '0': leave those out"):
        export_onnx(model, tmp_path / "model.onnx", "qdq", inputs={"input": torch.ones(2, 4)}, batches=[batch])


@pytest.mark.slow
def test_what_torch_cannot_trace(tmp_path):
    with pytest.raises(InputError, match=r"torch.onnx cannot export a Tagger"):
        export_onnx(opaque(), tmp_path / "model.onnx", inputs=tagger_inputs(2, 8))
    assert not [*tmp_path.iterdir()]


def test_a_model_that_is_too_large(monkeypatch, tmp_path):
    monkeypatch.setattr("sparseq.onnx.export.LARGEST", 1000)
    with pytest.raises(InputError, match=r"GB of tensors, and an ONNX file holds 2.1 GB at most"):
        export_onnx(tagger(), tmp_path / "model.onnx", inputs=tagger_inputs(2, 8))


@pytest.mark.parametrize("name", ["onnx", "onnxscript"])
def test_what_is_not_installed_is_said(name, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        InputError, match=rf"export_onnx needs {name}, which is not installed: pip install 'sparseq\[onnx\]'"
    ):
        export_onnx(tagger(), tmp_path / "model.onnx", inputs=tagger_inputs(2, 8))


def test_a_file_that_onnx_runtime_cannot_run(monkeypatch, tmp_path):
    path = tmp_path / "model.onnx"
    with pytest.raises(InputError, match=r"there is no file .*: give one that `sparseq export` has written"):
        OnnxModel(path)
    path.write_bytes(b"not a model")
    with pytest.raises(InputError, match=r"ONNX Runtime cannot load .*model.onnx"):
        OnnxModel(path)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"needs onnxruntime, which is not installed: pip install 'sparseq\[onnx\]'"):
        OnnxModel(path)


def graph():
    """A valid graph of one node."""
    from onnx import TensorProto, helper

    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in ("x", "y")]
    made = helper.make_graph([helper.make_node("Abs", ["x"], ["y"])], "graph", values[:1], values[1:])
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


class OneFile:
    """A tokenizer whose only file holds this text."""

    def __init__(self, text):
        self.text = text

    def save_pretrained(self, folder):
        (Path(folder) / "tokenizer.json").write_text(self.text)


def test_a_file_of_another_program(tmp_path):
    import onnx

    onnx.save(graph(), tmp_path / "model.onnx")
    with pytest.raises(InputError, match="was not written by `sparseq export`"):
        OnnxModel(tmp_path / "model.onnx")


def test_files_of_another_model_stay(tmp_path):
    for name in ("a.onnx", "b.onnx"):  # two forms of one model
        beside = files.files_beside(tmp_path / name, nn.Module(), OneFile("one"))
        files.write_model(graph(), tmp_path / name, {}, beside)
    with pytest.raises(InputError, match=r"already holds another tokenizer.json: give the exported model a new folder"):
        export_onnx(tagger(), tmp_path / "c.onnx", inputs=tagger_inputs(2, 8), tokenizer=OneFile("two"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.onnx", "b.onnx", "tokenizer.json"]
    assert (tmp_path / "tokenizer.json").read_text() == "one"


def test_a_graph_that_is_not_valid_is_not_written(tmp_path):
    broken = graph()
    broken.graph.node[0].op_type = "Absent"
    (tmp_path / "model.onnx").write_text("old")
    with pytest.raises(InputError, match="the exported graph is not valid ONNX"):
        files.write_model(broken, tmp_path / "model.onnx", {}, {"config.json": b"new"})
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    assert (tmp_path / "model.onnx").read_text() == "old"
