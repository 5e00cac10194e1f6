"""Layers in an exported file: integers that are equal, and products that runtimes execute as integers."""

import onnx
import pytest
import torch
from onnx import numpy_helper
from onnx_runs import Tagger, tagger_inputs
from torch import nn

from bench.executed import FLOAT_PRODUCTS, INTEGER_PRODUCTS, compiled_by_openvino, in_onnx_runtime, int8_products
from sparseq import InputError, calibrate, convert, export_onnx, pack, use_backend
from sparseq.nn import PackedLinear
from sparseq.onnx import OnnxModel, runtime
from sparseq_kernels.reference.int8_linear import quantize_input

PRODUCTS = 5


def converted(**settings):
    settings = {"sparsity": 0.5, **settings}
    return calibrate(convert(Tagger(), **settings), [tagger_inputs(4, 7, seed) for seed in range(3)]).eval()


@pytest.fixture(scope="module")
def integer(tmp_path_factory):
    """(the packed model, its file with a scale for each row)"""
    model = pack(converted())
    path = tmp_path_factory.mktemp("integer") / "model.onnx"
    return model, export_onnx(model, path, inputs=tagger_inputs(2, 8))


@pytest.fixture(scope="module")
def qdq(tmp_path_factory):
    """(the packed model of static scales, its file of quantize-dequantize pairs); from the training layers."""
    model = converted(activation="static")
    path = tmp_path_factory.mktemp("qdq") / "model.onnx"
    return pack(model), export_onnx(model, path, "qdq", inputs=tagger_inputs(2, 8))


@pytest.mark.parametrize("form", ["integer", "qdq"])
@pytest.mark.parametrize(("rows", "length"), [(2, 8), (1, 1), (1, 13), (5, 3)])
def test_it_computes_what_the_packed_model_does(form, rows, length, request):
    model, path = request.getfixturevalue(form)
    inputs = tagger_inputs(rows, length, seed=9)
    with torch.inference_mode(), use_backend("reference"):
        expected = model(**inputs)
    found = OnnxModel(path)(**inputs)
    assert list(found) == list(expected)
    for name, values in expected.items():
        assert found[name].shape == values.shape
        torch.testing.assert_close(found[name], values, rtol=1e-5, atol=1e-5)  # no integer differs: fp32 alone rounds


@pytest.mark.parametrize("form", ["integer", "qdq"])
def test_onnx_runtime_executes_every_product_in_integers(form, request, tmp_path):
    path = request.getfixturevalue(form)[1]
    ran = in_onnx_runtime(path, tagger_inputs(3, 5))
    assert sum(ran[name] for name in INTEGER_PRODUCTS) == PRODUCTS, ran
    assert sum(ran[name] for name in FLOAT_PRODUCTS) == 0, ran


def test_openvino_executes_every_product_of_pairs_in_int8(qdq):
    model, path = qdq
    compiled = compiled_by_openvino(path)
    assert int8_products(compiled) == PRODUCTS
    inputs = tagger_inputs(3, 5, seed=9)
    found = compiled({name: tensor.numpy() for name, tensor in inputs.items()})
    with torch.inference_mode():
        expected = model(**inputs)
    for name, values in expected.items():
        # A value in the middle between two integers may become either: a 127th of the largest.
        assert (torch.from_numpy(found[name]) - values).abs().max() <= values.abs().max() / 127


@pytest.mark.parametrize("form", ["integer", "qdq"])
def test_the_file_holds_integers(form, request):
    model, path = request.getfixturevalue(form)
    tensors = {one.name.removeprefix("model."): numpy_helper.to_array(one) for one in onnx.load(path).graph.initializer}
    for name, layer in model.named_modules():
        if isinstance(layer, PackedLinear):
            assert (tensors[f"{name}.weight"] == layer.quantized_values().t().numpy()).all()
            assert tensors[f"{name}.weight"].dtype == "int8"
    assert (tensors["embed.weight"] == model.embed.quantized_values().numpy()).all()
    assert tensors["embed.weight"].dtype == "int8"
    assert onnx.load(path).opset_import[0].version == 20
    assert b".py" not in path.read_bytes()  # no paths of the machine that exported it


@pytest.mark.parametrize(("vnni", "exact"), [(True, False), (False, True)])
def test_exact_products_are_asked_for_where_others_saturate(vnni, exact, integer, monkeypatch):
    monkeypatch.setattr(runtime, "has_vnni", lambda: vnni)
    options = OnnxModel(integer[1])._session.get_session_options()
    if exact:
        assert options.get_session_config_entry("session.x64quantprecision") == "1"
    else:
        with pytest.raises(RuntimeError):  # there is no such entry
            options.get_session_config_entry("session.x64quantprecision")


def test_inputs_that_it_cannot_read(integer):
    run, inputs = OnnxModel(integer[1]), tagger_inputs(2, 3)
    with pytest.raises(InputError, match="reads tokens, scale, and scale is not given"):
        run(tokens=inputs["tokens"])
    for wrong in (inputs["tokens"].float(), inputs["tokens"] + 20, inputs["tokens"][0]):
        with pytest.raises(InputError, match=r"cannot run .*model.onnx on these inputs"):
            run(**{**inputs, "tokens": wrong})
    assert not hasattr(run(**inputs), "absent")


class One(nn.Module):
    def __init__(self, **settings):
        super().__init__()
        torch.manual_seed(1)
        self.layer = nn.Linear(300, 7)
        convert(self, **settings)

    def forward(self, x):
        return self.layer(x)


EXTREME = torch.tensor([[1.0], [0.0], [1e-30], [1e30], [-3.0]]) * torch.randn(5, 300, generator=torch.manual_seed(2))


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["dynamic", "static"])
@pytest.mark.parametrize("bits", [4, 8])
def test_a_layer_is_exact_for_the_hardest_operands(bits, activation, tmp_path):
    """Rows and weights at the ends of their ranges, whose products saturate where a runtime adds two in int16."""
    model = One(bits=bits, activation=activation)
    with torch.no_grad():
        model.layer.weight[0], model.layer.weight[1] = 0.5, -0.5
    x = torch.cat([EXTREME, torch.full((1, 300), 2.0), torch.full((1, 300), -2.0)])
    if activation == "static":
        calibrate(model, [{"x": x[:1] / 2}])  # the rest is clipped
    layer = pack(model).layer
    q, scale = quantize_input(x, layer.input_scale, 8)
    acc = q.double() @ layer.quantized_values().t().double()
    product = acc * scale.double().unsqueeze(-1) * layer.scale.double()
    path = export_onnx(model, tmp_path / "one.onnx", inputs={"x": torch.randn(2, 300)})
    found = OnnxModel(path)(x=x)["output"]
    bound = 4 * torch.finfo(torch.float32).eps * (product.abs() + layer.bias.double().abs())  # four roundings
    assert ((found - (product + layer.bias)).abs() <= bound).all()
    with torch.inference_mode(), use_backend("reference"):
        assert torch.equal(found, layer(x))


@pytest.mark.slow
def test_pairs_clip_as_sparseq_does(tmp_path):
    """uint8 has one value more below zero, to which a runtime would round."""
    model = calibrate(One(activation="static"), [{"x": EXTREME[:1]}])
    x = torch.cat([100 * EXTREME[:1], -100 * EXTREME[:1]])
    path = export_onnx(model, tmp_path / "one.onnx", "qdq", inputs={"x": torch.randn(2, 300)})
    with torch.inference_mode(), use_backend("reference"):
        expected = model.eval()(x)
    for found in (OnnxModel(path)(x=x)["output"], torch.from_numpy(compiled_by_openvino(path)({"x": x.numpy()})[0])):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_layers_that_are_not_quantized_stay_floats(tmp_path):
    model = convert(nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4)), bits=None, sparsity=0.5)
    model[2] = convert(nn.Sequential(nn.Linear(6, 4)), embedding_bits=8)[0]
    x = torch.randn(3, 8)
    path = export_onnx(model, tmp_path / "some.onnx", inputs={"input": torch.randn(2, 8)})
    ran = in_onnx_runtime(path, {"input": x})
    assert sum(ran[name] for name in INTEGER_PRODUCTS) == sum(ran[name] for name in FLOAT_PRODUCTS) == 1
    with torch.inference_mode():
        torch.testing.assert_close(OnnxModel(path)(input=x)["output"], pack(model)(x), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("bits", [4, 16])
def test_embeddings_of_other_widths(bits, tmp_path):
    model = pack(convert(nn.Sequential(nn.Embedding(11, 8), nn.Linear(8, 3)), embedding_bits=bits))
    path = export_onnx(model, tmp_path / "rows.onnx", inputs={"input": torch.ones(2, 3, dtype=torch.int64)})
    ids = torch.arange(11).view(1, 11)
    with torch.inference_mode():
        torch.testing.assert_close(OnnxModel(path)(input=ids)["output"], model(ids), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_dynamic_activations_get_the_scales_of_the_batches(tmp_path):
    model = pack(converted())
    batches = [tagger_inputs(4, 7, seed) for seed in range(3)]
    scales = [layer.input_scale for layer in model.modules() if isinstance(layer, PackedLinear)]
    path = export_onnx(model, tmp_path / "model.onnx", "qdq", inputs=tagger_inputs(2, 8), batches=batches)
    assert scales == [None] * PRODUCTS and not any(layer._forward_pre_hooks for layer in model.modules())
    with torch.inference_mode():
        expected = model(**batches[0])["logits"]
        largest = [model.embed(one["tokens"]).abs().max() for one in batches]
    error = (OnnxModel(path)(**batches[0])["logits"] - expected).abs().max() / expected.abs().max()
    assert 0 < error < 0.1  # one scale for all rows is coarser than one for each
    tensors = {one.name.removeprefix("model."): numpy_helper.to_array(one) for one in onnx.load(path).graph.initializer}
    shared = tensors.get("up.input_scale", tensors.get("gate.input_scale"))  # equal ones are stored once
    assert shared == pytest.approx(float(max(largest)) / 127, rel=1e-6)
