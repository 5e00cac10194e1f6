"""Gradients pass through a packed layer to what is below it, such as an adapter: straight through its quantizers."""

import pytest
import torch
from packed_layers import FORMS, embedding, input_of, linear
from torch import nn

from sparseq import InputError
from sparseq.nn import calibrate, convert, pack, use_sparse_kernels

DTYPES = [torch.float32, torch.bfloat16]


def gradients(layer, x, g):
    x = x.clone().requires_grad_()
    layer(x).backward(g)
    return x.grad


def dequantized(layer):
    """The weight in fp32, whatever the layer's dtype."""
    values = layer.quantized_values().float()
    return values if layer.scale is None else values * layer.scale.unsqueeze(-1)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_the_inputs_gradient_is_that_of_the_dequantized_weight(form, static, dtype):
    if static and form[0] is None:
        static = False
    layer = linear(*form)
    if static:
        layer.register_buffer("input_scale", torch.full((1,), 0.05))
    layer.to(dtype)
    x, g = input_of(layer, dtype), torch.randn(4, 16).to(dtype)
    expected = g.double() @ dequantized(layer).double()
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 2e-2}
    torch.testing.assert_close(gradients(layer, x, g).double(), expected, **tolerance)
    # The same once more, by whatever was recorded; and after calls that want no gradient.
    with torch.no_grad():
        layer(x), layer(x)
    torch.testing.assert_close(gradients(layer, x, g).double(), expected, **tolerance)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_a_bias_that_is_made_trainable_gets_its_gradient(form):
    layer = linear(*form)
    x, g = input_of(layer), torch.randn(4, 16)
    layer(x)
    layer.bias.requires_grad_()
    layer(x).backward(g)
    torch.testing.assert_close(layer.bias.grad, g.sum(0))
    layer.bias = nn.Parameter(layer.bias.detach())
    layer(x).backward(g)
    assert next(iter(layer.parameters())) is layer.bias
    torch.testing.assert_close(layer.bias.grad, g.sum(0))


@pytest.mark.parametrize("form", [form for form in FORMS if form[0] is None], ids=str)
def test_stored_floats_that_are_made_trainable_get_their_gradient(form):
    for layer in (linear(*form), embedding(*form)):
        x = input_of(layer)
        layer.values.requires_grad_()
        dense = layer.quantized_values().detach().clone().requires_grad_()
        y = layer(x)
        g = torch.randn_like(y)
        y.backward(g)
        plain = nn.functional.embedding if hasattr(layer, "num_embeddings") else nn.functional.linear
        plain(x, dense).backward(g)
        stored = layer.stored_weight()
        expected = dense.grad
        if form[1] != "unstructured" or form[2] != "dense":
            kept = type(stored).from_tensors(
                stored.layout(), stored.tensors() | {"values": torch.ones_like(layer.values)}
            )
            expected = expected[kept.to_dense() != 0]
            torch.testing.assert_close(layer.values.grad.sum(), expected.sum(), rtol=1e-4, atol=1e-4)
            continue
        torch.testing.assert_close(layer.values.grad, expected)


@pytest.mark.parametrize("name", ["scale", "input_scale"])
@pytest.mark.parametrize("form", [form for form in FORMS if form[0] in (4, 8)], ids=str)
def test_scales_that_are_made_parameters_are_read_and_get_no_gradient(form, name):
    layer = linear(*form)
    layer.register_buffer("input_scale", torch.full((1,), 0.05))
    x = input_of(layer)
    expected = layer(x)
    setattr(layer, name, nn.Parameter(layer.get_buffer(name), requires_grad=False))
    assert torch.equal(layer(x), expected)
    layer.get_parameter(name).requires_grad_()
    with pytest.raises(InputError, match="there is no gradient for"):
        layer(x)
    with torch.no_grad():
        assert torch.equal(layer(x), expected)


class Adapted(nn.Module):
    """A low-rank adapter below a packed layer, and one above a packed embedding."""

    def __init__(self, table, layer):
        super().__init__()
        self.table, self.layer = table, layer
        self.down, self.up = nn.Linear(32, 4, bias=False), nn.Linear(4, 32, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, ids):
        rows = self.table(ids)
        return self.layer(rows + self.up(self.down(rows)))


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_an_adapter_below_learns(form):
    torch.manual_seed(0)
    model = Adapted(embedding(*form), linear(*form))
    ids, target = torch.arange(16), torch.randn(16, 16)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(40):
        loss = nn.functional.mse_loss(model(ids), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(parameter.grad.any() for parameter in model.parameters())
    assert losses[-1] < 0.9 * losses[0]


def test_through_a_whole_packed_model():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 4))
    convert(model, activation="static")
    calibrate(model, [{"input": torch.randn(32, 8)}])
    packed = use_sparse_kernels(pack(model))
    x = torch.randn(5, 8, requires_grad=True)
    packed(x).sum().backward()
    expected = torch.autograd.grad(
        nn.functional.linear(
            nn.functional.gelu(
                nn.functional.linear(y := x.detach().requires_grad_(), packed[0].weight, packed[0].bias)
            ),
            packed[2].weight,
            packed[2].bias,
        ).sum(),
        y,
    )[0]
    torch.testing.assert_close(x.grad, expected, rtol=0.05, atol=0.02)
