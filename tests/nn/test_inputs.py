"""What layers are called with: tensors that fit, on the layer's device; torch.fx's proxies; all else in a sentence."""

import pytest
import torch
from packed_layers import FORMS, embedding, input_of, linear
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from sparseq import InputError, convert, pack
from sparseq.nn import QuantEmbedding, QuantSparseLinear

TRAINING = {
    "dynamic": {},
    "4 bits": {"bits": 4},
    "16 bits": {"bits": 16},
    "learned": {"scale": "lsq"},
    "static": {"activation": "static"},
    "floating point": {"bits": None},
}


def training_layers():
    """(layer, input) of every kind that trains, with a mask and without."""
    for masked in (False, True):
        for settings in TRAINING.values():
            layer = QuantSparseLinear(32, 16, **settings)
            layer.set_mask(torch.rand(16, 32) > 0.5 if masked else None)
            layer(input_of(layer))
            yield layer.eval(), input_of(layer)
        table = QuantEmbedding(16, 32)
        table.set_mask(torch.rand(16, 32) > 0.5 if masked else None)
        yield table, input_of(table)


def packed_layers():
    for form in FORMS:
        for layer in (linear(*form), embedding(*form)):
            yield layer, input_of(layer)
    static = QuantSparseLinear(32, 16, activation="static")
    static(input_of(static))
    yield static.pack(), input_of(static)


LAYERS = [training_layers, packed_layers]


@pytest.mark.parametrize("layers", LAYERS)
def test_torch_fx_records_a_layer_as_one_call(layers):
    for layer, x in layers():
        model = nn.Sequential(layer, nn.Tanh())
        traced = torch.fx.symbolic_trace(model)
        assert [node.target for node in traced.graph.nodes if node.op == "call_module"] == ["0", "1"]
        assert torch.equal(traced(x), model(x)), layer
        # It is the layer that is called: what becomes of it later holds.
        traced.half()
        assert traced(x if not x.is_floating_point() else x.half()).dtype == torch.float16


@pytest.mark.parametrize("layers", LAYERS)
def test_torch_fx_is_refused_where_one_call_would_not_do(layers):
    for layer, _ in layers():
        with pytest.raises(InputError, match="trace the model that holds the layer"):
            torch.fx.symbolic_trace(layer)
        layer.register_forward_hook(lambda module, args, output: output * 2)
        with pytest.raises(InputError, match=r"layer '0' has forward hooks, which torch\.fx would record twice"):
            torch.fx.symbolic_trace(nn.Sequential(layer))


@pytest.mark.parametrize("layers", LAYERS)
def test_an_input_on_another_device_is_refused(layers):
    for layer, x in layers():
        with pytest.raises(RuntimeError):
            layer(x.to("meta"))
        layer.to("meta")
        with pytest.raises(RuntimeError):
            layer(x)
        assert layer(x.to("meta")).is_meta


@pytest.mark.parametrize("value", [None, [1.0], 3], ids=str)
@pytest.mark.parametrize("layers", LAYERS)
def test_an_input_that_is_no_tensor_is_a_type_error(layers, value):
    for layer, _ in layers():
        with pytest.raises(TypeError, match="must be a tensor, not a") as caught:
            layer(value)
        assert isinstance(caught.value, InputError)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.bool])
def test_a_packed_layer_with_a_static_scale_takes_no_integers(dtype):
    layer = QuantSparseLinear(32, 16, activation="static")
    x = input_of(layer)
    layer(x)
    with pytest.raises(InputError, match="real floating-point numbers, not torch"):
        layer.pack()(x.to(dtype))


@pytest.mark.parametrize(
    "wrong",
    [
        torch.ones(2, 32).to(torch.float8_e4m3fn),
        torch.ones(2, 32).to_sparse(),
        torch.ones(2, 32, device="meta"),
        torch.ones(2, 31),
        torch.tensor(1.0),
    ],
    ids=lambda x: f"{x.dtype} {x.layout} {x.device} {tuple(x.shape)}",
)
@pytest.mark.parametrize("scale", ["max", "lsq"])
def test_what_a_layer_does_not_take_leaves_its_static_scale_alone(wrong, scale):
    layer = QuantSparseLinear(32, 16, activation="static", scale=scale)
    with pytest.raises(InputError):
        layer(wrong)
    assert layer.input_scale == 0


def test_models_without_values_are_converted_and_run():
    net = lambda: nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8))  # noqa: E731
    for place in (FakeTensorMode(), torch.device("meta")):
        with place:
            for settings in ({}, {"sparsity": 0.5}, {"activation": "static"}, {"scale": "lsq"}):
                model = convert(net(), **settings)
                assert model(torch.ones(2, 8)).shape == (2, 8) and "QuantSparseLinear" in repr(model)
                if "sparsity" not in settings:
                    assert pack(model)(torch.ones(2, 8)).shape == (2, 8)
                    continue
                with pytest.raises(InputError, match="layer '0' cannot be packed: the layer's mask has no values"):
                    pack(model)
