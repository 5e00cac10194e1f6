"""Layers that get one input in turn quantize it once in training, and compute what they do when each quantizes it."""

import contextlib
import copy
import pickle
import threading
import weakref

import pytest
import torch
from fused_models import plain
from shared_inputs import WIDTH, Attention, assert_same, assert_shares, quantizations, results, unshared
from torch import nn
from torch.utils.checkpoint import checkpoint

from sparseq.nn import QuantSparseLinear, convert, shared_input
from sparseq_kernels import use_backend
from sparseq_kernels.backends import runnable


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
