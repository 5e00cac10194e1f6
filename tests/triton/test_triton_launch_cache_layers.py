"""The launch cache under packed layers: what changes in them, what keeps them alive, and who looks on."""

import copy
import gc
import pickle
import threading
import weakref

import pytest
import torch
from gpu_or_interpreter import DEVICE, randn, same
from launch_cache_calls import DESCRIPTORS, Counted, constants, linear
from torch.multiprocessing.reductions import StorageWeakRef

import sparseq
from sparseq.nn import QuantSparseLinear
from sparseq_kernels import use_backend
from sparseq_kernels.triton.int8_linear import CACHE
from sparseq_kernels.triton.runtime import launch, launch_cache
from sparseq_kernels.triton.runtime.gemm_config import use_config

OPS = torch.ops.sparseq


pytestmark = pytest.mark.usefixtures("on_triton")


def packed_layer(inputs=24, outputs=12):
    return sparseq.pack(QuantSparseLinear(inputs, outputs)).to(DEVICE)


def op_of(layer, x):
    return OPS.int8_linear(x, layer.values, layer.scale, layer.bias, None, "none", None, None)


def test_a_layers_weights_may_change(monkeypatch):
    counted, layer, x = Counted(monkeypatch), packed_layer(), randn(3, 24)
    before = layer(x)
    assert same(layer(x), before) and counted.replays == 1
    # In place, which a replay reads,
    layer.bias += 1
    torch.testing.assert_close(layer(x), before + 1)
    assert counted.replays == 2
    # and by another tensor, for which nothing is captured.
    layer.bias = torch.zeros_like(layer.bias)
    changed = layer(x)
    assert counted.replays == 2 and not torch.equal(changed, before)
    assert same(layer(x), changed) and counted.replays == 3
    other = packed_layer()
    layer.load_state_dict(other.state_dict())
    assert same(layer(x), other(x))


@pytest.mark.parametrize("name", ["values", "scale", "bias"])
def test_exchanged_memory_is_seen(name):
    layer, x = packed_layer(), randn(3, 24)
    layer(x), layer(x)
    for _ in range(2):  # The second could come where the first was.
        buffer = layer.get_buffer(name)
        buffer.data = torch.zeros_like(buffer)
    assert same(layer(x), op_of(layer, x))
    assert same(layer(x), op_of(layer, x))


def test_a_bias_that_wants_a_gradient_later_gets_it(monkeypatch):
    counted, layer, x = Counted(monkeypatch), packed_layer(), randn(3, 24)
    layer(x), layer(x)
    layer.bias.requires_grad_()
    layer(x).sum().backward()
    assert same(layer.bias.grad, torch.full_like(layer.bias, 3.0)) and counted.replays == 1


@pytest.mark.parametrize("config", [None, DESCRIPTORS])
def test_the_cache_keeps_no_model_alive(config):
    layer, x = packed_layer(32, 16), randn(40, 32)
    with use_config(config):
        layer(x), layer(x)
    assert CACHE.captured_shapes(layer.values) == 1
    tensors = (layer.values, layer.scale, layer.bias)
    memory = [StorageWeakRef(tensor.untyped_storage()) for tensor in tensors]
    ended = weakref.ref(layer.values)
    del layer, tensors
    gc.collect()
    assert ended() is None and all(one.expired() for one in memory)


def test_replaced_weights_are_not_kept():
    layer = packed_layer()
    first = weakref.ref(layer.values)
    for rows in (1, 2, 3):
        layer(randn(rows, 24))
        layer.values = layer.values.clone()
    layer(randn(4, 24))
    assert first() is None and CACHE.captured_shapes(layer.values) == 1


def test_a_constant_in_the_memory_of_x_is_not_captured():
    weight, _, bias, *rest = constants(24, 24)
    x = randn(24, 24)
    given = (weight, x[0], bias, *rest)
    assert same(linear(x, given), OPS.int8_linear(x, *given))
    assert CACHE.captured_shapes(weight) == 0


def test_without_values_there_are_shapes():
    layer = sparseq.pack(QuantSparseLinear(24, 12)).to("meta")
    assert layer(torch.empty(3, 24, device="meta")).shape == (3, 12)


def test_a_call_that_something_observes_is_not_replayed(monkeypatch):
    counted, layer, x = Counted(monkeypatch), packed_layer(), randn(3, 24)
    expected = layer(x)
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    stacked = torch.func.vmap(layer)(torch.stack([x, x]))
    assert same(stacked[1], expected)
    assert layer(x.clone().requires_grad_()).shape == expected.shape
    assert same(torch.compile(layer, fullgraph=True, backend="eager")(x), expected)
    assert counted.replays == 0
    with use_backend("reference"):
        torch.testing.assert_close(layer(x), expected)
    assert counted.replays == 0
    assert same(layer(x), layer(x))


def test_results_are_those_of_the_mode_they_are_asked_in(monkeypatch):
    counted, layer, x = Counted(monkeypatch), packed_layer(), randn(3, 24)
    with torch.inference_mode():
        assert layer(x).is_inference()
    y = layer(x)
    assert counted.replays == 1 and not y.is_inference()
    weight = torch.ones(12, device=DEVICE, requires_grad=True)
    (y * weight).sum().backward()
    assert same(weight.grad, y.sum(0))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_copies_have_captures_of_their_own(copied, monkeypatch):
    counted, layer, x = Counted(monkeypatch), packed_layer(), randn(3, 24)
    expected = layer(x)
    other = copied(layer)
    other.bias += 1
    torch.testing.assert_close(other(x), expected + 1)
    assert counted.replays == 0 and CACHE.captured_shapes(other.values) == 1
    assert same(layer(x), expected)


def test_no_more_shapes_are_captured_than_memory_is_spared_for(monkeypatch):
    monkeypatch.setattr(launch_cache, "MOST_SHAPES", 2)
    counted, layer = Counted(monkeypatch), packed_layer()
    for _ in range(2):
        for rows in (1, 2, 3):
            assert layer(randn(rows, 24)).shape == (rows, 12)
    assert counted.replays == 2 and CACHE.captured_shapes(layer.values) == 2


class Adding:
    """A kernel in Python: Triton's interpreter runs in one thread alone."""

    def __getitem__(self, grid):
        return lambda x, weight, out: out.copy_(x + weight)


def added(x, weight):
    out = launch.empty(x.shape, x.dtype, x.device)
    launch.launch(Adding(), (1, 1, 1), (x, weight, out), (), num_warps=4, num_stages=1)
    return out


def test_threads_may_capture_and_replay_at_once(monkeypatch):
    counted = Counted(monkeypatch)
    run, given = (added, (torch.tensor([0.5]),)) if DEVICE == "cpu" else (OPS.int8_linear, constants(24, 24))
    inputs = [randn(rows, 24, seed=rows) for rows in (1, 2, 3, 4)]
    expected = [run(x, *given) for x in inputs]
    wrong = []

    def work(first):
        with use_backend("triton"):
            for turn in range(200):
                number = (first + turn) % len(inputs)
                if not same(CACHE(run, inputs[number], *given), expected[number]):
                    wrong.append(number)

    threads = [threading.Thread(target=work, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == [] and CACHE.captured_shapes(given[0]) == 4 and counted.replays > 600
