"""Layers stand where nn.Linear and nn.Embedding stood: what builds, moves and reads those does so with ours."""

import inspect

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from sparseq import InputError, convert
from sparseq.nn import QuantEmbedding, QuantSparseLinear, prunable

PAIRS = [(nn.Linear, QuantSparseLinear), (nn.Embedding, QuantEmbedding)]


@pytest.mark.parametrize("plain,ours", PAIRS)
def test_the_constructor_takes_what_the_plain_one_takes(plain, ours):
    theirs = list(inspect.signature(plain.__init__).parameters.values())
    mine = list(inspect.signature(ours.__init__).parameters.values())
    assert [(p.name, p.default) for p in mine[: len(theirs)]] == [(p.name, p.default) for p in theirs]
    assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in mine[len(theirs) :])
    layer = ours(4, 6)
    assert isinstance(layer, plain) and set(plain.__constants__) <= set(ours.__constants__)
    assert all(hasattr(layer, name) for name in plain.__constants__)


@pytest.mark.parametrize("plain,ours", PAIRS)
@pytest.mark.parametrize(
    "args,kwargs", [((-1, 4), {}), (("4", 4), {}), ((4, 4), {"device": "nowhere"}), ((4, 4), {"dtype": "float32"})]
)
def test_what_the_plain_constructor_refuses_is_refused_alike(plain, ours, args, kwargs):
    with pytest.raises(Exception) as expected:
        plain(*args, **kwargs)
    with pytest.raises((type(expected.value), InputError)):
        ours(*args, **kwargs)


@pytest.mark.parametrize("ours", [QuantSparseLinear, QuantEmbedding])
@pytest.mark.parametrize("dtype", [torch.complex64, torch.int8, torch.float8_e4m3fn])
def test_weights_that_cannot_be_quantized_are_refused(ours, dtype):
    with pytest.raises(InputError, match="only float32, float16, bfloat16, float64 can be quantized"):
        ours(4, 4, dtype=dtype)


@pytest.mark.parametrize("bits", [True, 8.0, "8", 3, -8])
def test_bits_are_one_of_a_few_integers(bits):
    for make in (QuantSparseLinear, QuantEmbedding):
        with pytest.raises(InputError, match="it must be one of 4, 8, 16, None"):
            make(4, 4, bits=bits)


@pytest.mark.parametrize("pattern", [None, 4, (4, 4), b"4x4"])
def test_patterns_are_text(pattern):
    with pytest.raises(InputError, match="given as text such as '4x4'"):
        QuantSparseLinear(4, 4, pattern=pattern)
    with pytest.raises(InputError, match="must be at least 0"):
        convert(nn.Linear(4, 4), sparsity="0.5")


def test_one_selector_alone_is_meant_as_one():
    model = nn.ModuleDict({"a": nn.Linear(4, 4), "b": nn.Linear(4, 4)})
    convert(model, include="b")
    assert type(model["a"]) is nn.Linear and isinstance(model["b"], QuantSparseLinear)
    assert list(prunable(model, include="b")) == ["b"]
    for wrong in ([3], [int], (None,)):
        with pytest.raises(InputError, match="module types"):
            convert(nn.Linear(4, 4), include=wrong)


@pytest.mark.parametrize("settings", [{}, {"scale": "lsq", "activation": "static"}], ids=["dynamic", "learned"])
def test_initialization_can_be_skipped_and_done_later(settings):
    layer = torch.nn.utils.skip_init(QuantSparseLinear, 8, 4, **settings)
    source = QuantSparseLinear(8, 4, **settings)
    source(torch.randn(3, 8))
    layer.load_state_dict(source.state_dict())
    x = torch.randn(2, 8)
    assert torch.equal(layer.eval()(x), source.eval()(x))
    layer.reset_parameters()
    if layer.step_size is not None:
        torch.testing.assert_close(layer.step_size.detach(), layer.weight.detach().abs().amax(1) / 127)
    assert torch.nn.utils.skip_init(QuantEmbedding, 8, 4).weight.shape == (8, 4)


def test_embeddings_from_pretrained_rows():
    rows = torch.randn(5, 4)
    layer = QuantEmbedding.from_pretrained(rows, padding_idx=1)
    assert type(layer) is QuantEmbedding and not layer.weight.requires_grad and layer.padding_idx == 1
    assert (layer(torch.arange(5)) - rows).abs().max() < 0.02


@pytest.mark.parametrize("indices", [[0, 1], None, torch.tensor([0.5]), torch.tensor([True])], ids=str)
@pytest.mark.parametrize("masked", [False, True])
def test_indices_are_what_torch_takes_for_indices(indices, masked):
    layer, plain = QuantEmbedding(4, 4), nn.Embedding(4, 4)
    if masked:
        layer.set_mask(torch.ones(4, 4, dtype=torch.bool))
    with pytest.raises(Exception) as expected:
        plain(indices)
    with pytest.raises(type(expected.value)):
        layer(indices)


@pytest.mark.parametrize("index", [4, -1, -5])
def test_indices_out_of_range_are_refused_in_training(index):
    layer = QuantEmbedding(4, 4)
    layer.set_mask(torch.ones(4, 4, dtype=torch.bool))
    with pytest.raises(IndexError):
        layer(torch.tensor([index]))


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.bool, torch.complex64])
def test_inputs_that_hold_no_real_numbers_are_refused(dtype):
    for settings in ({}, {"bits": None}, {"activation": "static"}):
        with pytest.raises(InputError, match="real floating-point numbers, not torch"):
            QuantSparseLinear(4, 4, **settings)(torch.ones(2, 4).to(dtype))


@pytest.mark.parametrize("value", [None, [[1.0] * 4], 3], ids=str)
@pytest.mark.parametrize("settings", [{}, {"bits": None}, {"activation": "static"}], ids=str)
def test_an_input_that_is_no_tensor_is_a_type_error_as_in_torch(settings, value):
    with pytest.raises(TypeError):
        nn.Linear(4, 4)(value)
    with pytest.raises(TypeError, match="must be a tensor, not a") as caught:
        QuantSparseLinear(4, 4, **settings)(value)
    assert isinstance(caught.value, InputError)


def test_memory_can_be_shared():
    layer = QuantSparseLinear(4, 4, scale="lsq", activation="static")
    layer.set_mask(torch.ones(4, 4, dtype=torch.bool))
    layer.share_memory()
    assert all(tensor.is_shared() for tensor in layer.state_dict().values())


def test_a_parametrization_can_be_put_on_ours():
    class Halved(nn.Module):
        def forward(self, weight):
            return weight / 2

    layer, x = QuantSparseLinear(8, 4), torch.randn(3, 8)
    expected = layer(x) - layer.bias
    parametrize.register_parametrization(layer, "weight", Halved())
    torch.testing.assert_close(2 * (layer(x) - layer.bias), expected)
    with pytest.raises(InputError, match="remove_parametrizations"):
        layer.to_linear()
