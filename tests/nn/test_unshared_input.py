"""Where layers with one input must not share its quantization."""

from unittest import mock

import pytest
import torch
from shared_inputs import WIDTH, Attention, assert_same, assert_shares, quantizations, results, unshared
from torch import nn
from torch.autograd import forward_ad
from torch.utils.flop_counter import FlopCounterMode

from sparseq.nn import QuantSparseLinear, shared_input
from sparseq_kernels import qat_linear, use_backend
from sparseq_kernels.backends import runnable
from sparseq_kernels.instruction_sets import use_instruction_set


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def no_grad_multiply(hidden):
    with torch.no_grad():
        hidden.mul_(2)


def write_a_view(hidden):
    hidden.view(-1)[3:5].fill_(0.5)


def write_detached(hidden):
    hidden.detach().add_(1)


def replace_memory(hidden):
    hidden.data = torch.randn_like(hidden)


def replace_memory_twice(hidden):
    """The second time by what may get the address that the first had."""
    hidden.data = torch.randn_like(hidden)
    hidden.data = torch.randn_like(hidden)


def turn_memory(hidden):
    hidden.data = hidden.data.t()


CHANGES = (no_grad_multiply, write_a_view, write_detached, replace_memory, replace_memory_twice, turn_memory)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("before", [1, 2])
def test_no_sharing_after_a_change_in_place(change, before):
    def between(i, hidden):
        if i == before:
            change(hidden)
        return hidden

    def forward(model, x):
        """What autograd would refuse for a LayerNorm's result, which its backward needs unchanged."""
        hidden = x * 1
        return torch.cat([layer(between(i, hidden)) for i, layer in enumerate(model.layers)], -1)

    model, x = Attention(), torch.randn(WIDTH, WIDTH)

    def outputs():
        torch.manual_seed(1)
        return forward(model, x.clone().requires_grad_())

    with quantizations() as counter:
        found = outputs()
    assert counter.count == 2
    with unshared():
        assert torch.equal(found, outputs())


def test_no_sharing_with_equal_values_in_another_tensor():
    assert_shares(Attention(between=lambda i, hidden: hidden.clone()), torch.randn(4, WIDTH), times=3)


def test_no_sharing_between_views_of_one_tensor():
    assert_shares(Attention(between=lambda i, hidden: hidden.view_as(hidden)), torch.randn(4, WIDTH), times=3)


def test_no_sharing_with_more_bits():
    model = Attention()
    model.layers[1] = QuantSparseLinear(WIDTH, 5, bits=16)
    with quantizations() as counter:
        found = results(model, torch.ones(4, WIDTH))
    assert counter.count == 1  # that of the first and the third; the second's is no one of integers
    with unshared():
        assert_same(found, results(model, torch.ones(4, WIDTH)))


def test_no_sharing_between_numbers_of_bits():
    hidden, weight = torch.randn(4, WIDTH, requires_grad=True).exp(), torch.randn(5, WIDTH)
    for bits in (8, 4, 8):
        arguments = (hidden, weight, None, None, None, None, 8, bits, None, False, None)
        assert torch.equal(shared_input.shared_qat_linear(*arguments), qat_linear(*arguments))


def test_no_sharing_of_static_activations():
    model = Attention(activation="static")
    model(torch.randn(4, WIDTH))  # finds the scales
    model.eval()
    assert_shares(model, torch.randn(4, WIDTH), times=3)


def test_no_sharing_while_a_layer_does_not_quantize():
    model = Attention()
    model.layers[0].quantizing = False
    with quantizations() as counter:
        model(torch.randn(4, WIDTH)).sum().backward()
    assert counter.count == 1


@pytest.mark.parametrize("forced", [name for name in runnable() if name in ("cpu", "native")])
def test_no_sharing_with_another_backend(forced):
    model = Attention()

    def forward(x):
        hidden = model.below(x)
        first = model.layers[0](hidden)
        with use_backend(forced):
            second = model.layers[1](hidden)
        return torch.cat([first, second, model.layers[2](hidden)], -1)

    with use_backend("cpu"), quantizations() as counter:
        forward(torch.randn(4, WIDTH))
    assert counter.count == (1 if forced == "cpu" else 3)


def test_no_sharing_with_another_instruction_set():
    model = Attention()
    hidden = model.below(torch.randn(4, WIDTH))
    with quantizations() as counter:
        model.layers[0](hidden)
        with use_instruction_set("portable"):
            model.layers[1](hidden)
            model.layers[2](hidden)
    assert counter.count == 2


def leaf_that_requires_a_gradient():
    return torch.randn(4, WIDTH, requires_grad=True)


def parameter():
    return nn.Parameter(torch.randn(4, WIDTH))


def without_gradient():
    return torch.randn(4, WIDTH)


def of_numpy():
    return torch.from_numpy(torch.randn(4, WIDTH).numpy())


@pytest.mark.parametrize("make", [leaf_that_requires_a_gradient, parameter, without_gradient, of_numpy])
def test_no_sharing_of_what_no_operation_computed(make):
    """Others may write to its memory, unseen by its version."""
    model, x = Attention(), make()
    with quantizations() as counter:
        first = [layer(x) for layer in model.layers]
        x.detach().numpy()[:] *= -2
        second = [layer(x) for layer in model.layers]
    assert counter.count == 6
    assert not any(torch.equal(one, other) for one, other in zip(first, second, strict=True))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_no_sharing_without_autograd(mode):
    model, x = Attention(), torch.randn(4, WIDTH)
    computed = model.below(x)
    with mode(), quantizations() as counter:
        model(x)
        for layer in model.layers:
            layer(computed)
    assert counter.count == 6


def test_no_sharing_under_transforms_and_observers():
    model, x = Attention(), torch.randn(4, WIDTH)
    with unshared():
        expected, outer = results(model, x), model(x)
    with FlopCounterMode(display=False) as flops, quantizations() as counter:
        assert_same(results(model, x), expected)
    assert counter.count == 3 and flops.get_total_flops() > 0
    state = dict(model.named_parameters())

    def loss(parameters, x):
        return torch.func.functional_call(model, parameters, (x,)).pow(2).sum()

    with mock.patch.object(shared_input, "OP", side_effect=AssertionError("shared")):
        found = torch.func.grad(loss)(state, x)
        torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(state, torch.randn(2, 4, WIDTH))
        with forward_ad.dual_level():
            model(forward_ad.make_dual(x, torch.ones_like(x)))
    outer.pow(2).sum().backward()
    assert all(
        torch.allclose(found[name], p.grad - one) for (name, p), one in zip(state.items(), expected[2:], strict=True)
    )


def test_compiled_and_exported_programs_are_those_of_layers_that_do_not_share():
    model, x = Attention(), torch.randn(4, WIDTH)
    expected = results(model, x)
    assert_same(results(model, x, torch.compile(model, backend="aot_eager", fullgraph=True)), expected)
    for strict in (False, True):
        program = torch.export.export(model, (x,), strict=strict)
        calls = [node.target for node in program.graph.nodes if node.op == "call_function"]
        assert calls.count(torch.ops.sparseq.qat_linear.default) == 3
        assert torch.ops.sparseq.quantize_rows.default not in calls
        assert torch.equal(program.module()(x), expected[0])
