"""Layers that get one input in turn quantize it once in training, and compute what they do when each quantizes it."""

import contextlib
import copy
import pickle
import threading
import weakref
from collections.abc import Iterator
from unittest import mock

import pytest
import torch
from fused_models import plain
from torch import nn
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from sparseq.nn import QuantSparseLinear, convert, linear, shared_input
from sparseq_kernels import qat_linear, use_backend
from sparseq_kernels.backends import runnable
from sparseq_kernels.cpu import qat_linear as cpu
from sparseq_kernels.instruction_sets import use_instruction_set
from sparseq_kernels.reference import qat_linear as reference

WIDTH = 24


class Counter:
    def __init__(self) -> None:
        self.count = 0

    def of(self, function):
        def counting(*args, **named):
            self.count += 1
            return function(*args, **named)

        return counting


@contextlib.contextmanager
def quantizations() -> Iterator[Counter]:
    """Counts how often an input is quantized."""
    counter = Counter()
    places = ((cpu, "quantize_input"), (reference, "quantize_input"))
    with contextlib.ExitStack() as stack:
        for module, name in places:
            stack.enter_context(mock.patch.object(module, name, counter.of(getattr(module, name))))
        yield counter


@contextlib.contextmanager
def unshared() -> Iterator[None]:
    with mock.patch.object(linear, "shared_qat_linear", qat_linear):
        yield


class Attention(nn.Module):
    """Three layers of one input, which is computed here, as a transformer's are. between(i, hidden) runs before the
    i-th of them."""

    def __init__(self, between=lambda i, hidden: hidden, **settings):
        super().__init__()
        self.below = nn.Sequential(nn.LayerNorm(WIDTH))
        self.layers = nn.ModuleList([QuantSparseLinear(WIDTH, WIDTH // 2 * (i + 1), **settings) for i in range(3)])
        self.between = between

    def forward(self, x):
        hidden = self.below(x)
        return torch.cat([layer(self.between(i, hidden)) for i, layer in enumerate(self.layers)], -1)


def results(model, x, forward=None):
    """The output, and the gradients of the input and of all parameters."""
    leaf = x.clone().requires_grad_()
    model.zero_grad()
    y = (model if forward is None else forward)(leaf)
    y.backward(torch.linspace(-1, 1, y.numel()).reshape(y.shape).to(y.dtype))
    return [y.detach(), leaf.grad, *[p.grad.clone() for p in model.parameters()]]


def assert_same(found, expected):
    assert len(found) == len(expected)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def assert_shares(model, x, times=1, forward=None):
    """That the input is quantized so many times, with the results of layers that do not share."""
    with quantizations() as counter:
        found = results(model, x, forward)
    assert counter.count == times
    with unshared(), quantizations() as counter:
        assert_same(found, results(model, x, forward))
    assert counter.count == 3


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.mark.processor
@pytest.mark.parametrize("backend", [name for name in runnable() if name in ("cpu", "native")])
@pytest.mark.parametrize("settings", [{}, {"bits": 4}], ids=str)
@pytest.mark.parametrize("shape", [(5, 7, WIDTH), (3, WIDTH), (WIDTH,)], ids=str)
def test_one_quantization_and_the_same_results(backend, settings, shape):
    with use_backend(backend):
        assert_shares(Attention(**settings), torch.randn(shape))


def test_no_sharing_where_the_forward_returns_no_integers():
    with use_backend("reference"):
        assert_shares(Attention(), torch.randn(4, WIDTH), times=3)
    assert_shares(Attention(scale="lsq"), torch.randn(4, WIDTH), times=3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_dtypes(dtype):
    assert_shares(Attention().to(dtype), torch.randn(4, WIDTH, dtype=dtype))


def test_masks_and_frozen_layers():
    model = Attention()
    for layer in model.layers:
        layer.set_mask(torch.rand_like(layer.weight) > 0.5)
    assert_shares(model, torch.randn(4, WIDTH))
    model.zero_grad()
    model.layers[1].requires_grad_(False)
    with quantizations() as counter:
        model(torch.randn(4, WIDTH)).sum().backward()
    assert counter.count == 1 and model.layers[1].weight.grad is None


def test_rows_that_are_not_finite():
    x = torch.randn(4, WIDTH)
    x[1, 2], x[2, 3] = float("nan"), float("inf")
    with quantizations() as counter:
        found = results(Attention(), x)
    assert counter.count == 1 and found[0][1:3].isnan().all() and found[0][0].isfinite().all()


def test_inputs_that_are_not_contiguous():
    model = Attention()
    model.below.append(Transposed())
    assert_shares(model, torch.randn(2, 3, WIDTH))


class Transposed(nn.Module):
    def forward(self, x):
        return x.transpose(0, 1)


def test_the_backward_keeps_the_integers_once():
    model, storages = Attention(), {}

    def note(tensor):
        if tensor.dtype == torch.int8:
            storages[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        model(torch.randn(5, WIDTH, requires_grad=True))
    assert len([t for t in storages.values() if t.shape == (5, WIDTH)]) == 1
    assert len(storages) == 4  # and three weights


def test_one_encoder_layer_quantizes_four_inputs():
    model = convert(plain(), exclude=["embeddings.*", "classifier", "*pooler*"]).train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    layers, ids = model.config.num_hidden_layers, torch.randint(5, 40, (2, 9))

    def gradients():
        model.zero_grad()
        model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.sum().backward()
        return [p.grad for p in model.parameters() if p.grad is not None]

    with quantizations() as counter:
        found = gradients()
    assert counter.count == 4 * layers
    with unshared(), quantizations() as counter:
        assert_same(found, gradients())
    assert counter.count == 6 * layers


def test_autocast_sets_the_outputs_alone():
    model = Attention()

    def forward(x):
        with torch.autocast("cpu", torch.bfloat16):
            y = model(x)
        assert y.dtype == torch.bfloat16
        return y

    assert_shares(model, torch.randn(4, WIDTH), forward=forward)

    def mixed(x):
        hidden = model.below(x)
        outputs = []
        for i, layer in enumerate(model.layers):
            with torch.autocast("cpu", torch.bfloat16, enabled=i == 1):
                outputs.append(layer(hidden).float())
        return torch.cat(outputs, -1)

    assert_shares(model, torch.randn(4, WIDTH), forward=mixed)


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


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing(reentrant):
    model, x = Attention(), torch.randn(4, WIDTH)
    assert_same(results(model, x, lambda x: checkpoint(model, x, use_reentrant=reentrant)), results(model, x))

    def above(x):
        return checkpoint(
            lambda h: torch.cat([k(h) for k in model.layers], -1), model.below(x), use_reentrant=reentrant
        )

    assert_same(results(model, x, above), results(model, x))


@pytest.mark.parametrize("first", [True, False])
def test_checkpointing_whose_second_forward_finds_what_the_first_did_not(first):
    """It asserts that both save tensors of the same shapes."""
    model, x = Attention(), torch.randn(4, WIDTH)
    shares = [first, not first]

    def run(hidden):
        with contextlib.nullcontext() if shares.pop(0) else unshared():
            return torch.cat([layer(hidden) for layer in model.layers], -1)

    found = results(model, x, lambda x: checkpoint(run, model.below(x), use_reentrant=False))
    assert not shares
    assert_same(found, results(model, x))


def test_a_layer_that_is_called_again_in_a_loop():
    model = Attention()
    model.layers = nn.ModuleList([model.layers[0]] * 3)
    assert_shares(model, torch.randn(4, WIDTH))


def test_nothing_outlives_the_input():
    model = Attention()
    hidden = model.below(torch.randn(4, WIDTH))
    model.layers[0](hidden)  # whose result, and so what its backward keeps, is not held
    found = shared_input._last.found
    integers = [weakref.ref(rows) for rows in found.rows]
    assert found() is hidden and all(rows() is not None for rows in integers)
    del hidden
    assert all(rows() is None for rows in integers) and found() is None and found.memory is None


def test_one_input_at_a_time():
    model, x = Attention(), torch.randn(4, WIDTH)
    one, other = model.below(x), model.below(x)
    with quantizations() as counter:
        for hidden in (one, other, one):
            model.layers[0](hidden)
    assert counter.count == 3


def test_threads_do_not_share():
    model = Attention()
    hidden = model.below(torch.randn(4, WIDTH))
    expected, outputs = model.layers[1](hidden), []
    with quantizations() as counter:
        model.layers[0](hidden)
        thread = threading.Thread(target=lambda: outputs.append(model.layers[1](hidden)))
        thread.start()
        thread.join()
        model.layers[2](hidden)
    assert counter.count == 1  # the thread's: what this one found before still holds
    assert torch.equal(outputs[0], expected)


def test_many_threads_at_once():
    model, x = Attention(), torch.randn(8, 16, WIDTH)
    expected, failures = [model(one) for one in x], []

    def run():
        for _ in range(20):
            for one, right in zip(x, expected, strict=True):
                if not torch.equal(model(one), right):
                    failures.append(one)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_layers_hold_nothing_of_it():
    model, x = Attention(), torch.randn(4, WIDTH)
    layer = model.layers[0]
    before, state = dict(vars(layer)), list(model.state_dict())
    hooked = []
    handle = layer.register_forward_hook(lambda module, args, output: hooked.append(output))
    expected = results(model, x)
    handle.remove()
    assert len(hooked) == 1 and list(model.state_dict()) == state and list(vars(layer)) == list(before)
    for other in (copy.deepcopy(model.layers), pickle.loads(pickle.dumps(model.layers))):
        hidden = model.below(x)
        assert torch.equal(torch.cat([k(hidden) for k in other], -1), expected[0])


def test_an_input_that_a_layer_refuses_is_refused_as_before():
    wrong = torch.randn(4, WIDTH + 1, requires_grad=True).exp()
    messages = []
    for context in (contextlib.nullcontext(), unshared()):
        with context, pytest.raises(ValueError, match="does not fit a weight") as caught:
            QuantSparseLinear(WIDTH, 5)(wrong)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
