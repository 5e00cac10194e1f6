"""transformers models in an exported file: any batch and length, padding, and what lies beside the file."""

import json

import onnx
import pytest
import torch
from pretrained_models import model, static

from bench.executed import FLOAT_PRODUCTS, INTEGER_PRODUCTS, compiled_by_openvino, in_onnx_runtime, int8_products
from sparseq import convert, export_onnx, pack
from sparseq.nn import PackedLinear
from sparseq.onnx import OnnxModel

pytestmark = pytest.mark.slow

# By rounding an activation may come out on the other side of the middle between two integers, which moves it by a 127th
# of its row's largest; most rows have none.
MOST, USUAL = 2e-2, 1e-5


def batch(rows, length, family="Bert"):
    generator = torch.Generator().manual_seed(rows * 100 + length)
    ids = torch.randint(3, 40, (rows, length), generator=generator)
    lengths = torch.randint(1, length + 1, (rows, 1), generator=generator)
    mask = (torch.arange(length) < lengths).long()
    if family != "Bert":
        return {"input_ids": ids * mask, "attention_mask": mask}
    kinds = torch.randint(2, (rows, length), generator=generator)
    return {"input_ids": ids * mask, "attention_mask": mask, "token_type_ids": kinds}


def small(family="Bert", **changes):
    return model(family, num_hidden_layers=1, **changes)


MODELS = {
    "packed in 4 x 4": ("integer", "Bert", lambda: pack(convert(small(), sparsity=0.5, pattern="4x4"))),
    "pairs": ("qdq", "Bert", lambda: static(small(), sparsity=0.5)),
    "RoBERTa of 4 bits": ("integer", "Roberta", lambda: convert(small("Roberta", type_vocab_size=1), bits=4)),
    "DistilBERT": ("qdq", "DistilBert", lambda: pack(static(small("DistilBert"), bits=4))),
    "MPNet, static": ("integer", "MPNet", lambda: pack(static(small("MPNet")))),
}


def test_attention_makes_no_pass_for_sequences_without_a_token(tmp_path):
    source = pack(convert(small()))
    path = export_onnx(source, tmp_path / "model.onnx")
    assert source.config._attn_implementation == "sdpa"  # the exported copy's alone is changed
    assert "IsNaN" not in {node.op_type for node in onnx.load(path).graph.node}


@pytest.mark.parametrize("kind", MODELS)
def test_logits_are_those_of_the_packed_model(kind, tmp_path):
    form, family, make = MODELS[kind]
    source = make()
    packed = source if any(isinstance(part, PackedLinear) for part in source.modules()) else pack(source)
    path = export_onnx(source, tmp_path / "model.onnx", form)
    run = OnnxModel(path)
    assert run.input_names == tuple(batch(1, 1, family)) and run.output_names == ("logits",)
    errors = []
    for rows, length in ((1, 1), (1, 9), (2, 8), (3, 17), (16, 40)):
        given = batch(rows, length, family)
        with torch.inference_mode():
            expected = packed(**given).logits
        found = run(**given).logits
        assert found.shape == expected.shape
        errors.extend(((found - expected).abs().amax(1) / expected.abs().max()).tolist())
    assert max(errors) < MOST and sorted(errors)[len(errors) // 2] < USUAL
    products = sum(isinstance(part, PackedLinear) for part in packed.modules())
    ran = in_onnx_runtime(path, batch(2, 8, family))
    assert sum(ran[name] for name in INTEGER_PRODUCTS) == products == int(run.metadata["sparseq.integer_products"])
    assert sum(ran[name] for name in FLOAT_PRODUCTS) == 2, ran  # queries by keys, and shares by values
    if form == "qdq":
        assert int8_products(compiled_by_openvino(path)) == products


def test_what_lies_beside_the_file(tmp_path, tiny_tokenizer):
    from transformers import AutoConfig, AutoTokenizer

    path = export_onnx(convert(small()), tmp_path / "new" / "model.onnx", tokenizer=tiny_tokenizer, metadata={"a": "b"})
    names = sorted(file.name for file in path.parent.iterdir())
    assert names == ["config.json", "model.onnx", "tokenizer.json", "tokenizer_config.json"]
    assert "quantization_config" not in json.loads((path.parent / "config.json").read_text())
    assert AutoConfig.from_pretrained(path.parent).architectures == ["BertForSequenceClassification"]
    assert AutoTokenizer.from_pretrained(path.parent)("good film") == tiny_tokenizer("good film")
    assert {one.key: one.value for one in onnx.load(path).metadata_props}.items() >= {"a": "b"}.items()
