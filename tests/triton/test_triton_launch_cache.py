"""The launch cache: launches captured for one input are replayed for others like it, and for nothing else."""

import contextlib
import copy
import gc
import pickle
import threading
import weakref

import pytest
import torch
from gpu_or_interpreter import DEVICE, FLOATS, integers, randn, same
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.multiprocessing.reductions import StorageWeakRef

import sparseq
from sparseq.nn import QuantSparseLinear
from sparseq_kernels import use_backend
from sparseq_kernels.formats import BlockSparseWeight
from sparseq_kernels.reference.quantize_rows import quantize_rows
from sparseq_kernels.sparse_dispatch import operands
from sparseq_kernels.triton.runtime import launch, launch_cache
from sparseq_kernels.triton.runtime.gemm_config import GemmConfig, use_config
from sparseq_kernels.triton.runtime.launch_cache import CapturedCall, cached, captured_shapes

OPS = torch.ops.sparseq
SPLIT = GemmConfig(16, 32, 32, num_warps=4, num_stages=2, split_k=3)
DESCRIPTORS = GemmConfig(64, 128, 64, num_warps=4, num_stages=2, descriptors=True)


@pytest.fixture(autouse=True)
def _on_triton():
    torch.manual_seed(0)
    with use_backend("triton"):
        yield


def constants(N, K, bias=True, static=False):
    """int8_linear's arguments after x."""
    weight, scale = quantize_rows(randn(N, K, seed=1), 8)
    given_scale = torch.full((1,), 0.02, device=DEVICE) if static else None
    return weight, scale, randn(N, seed=2) if bias else None, given_scale, "none", None, None


def linear(x, given):
    """int8_linear through the cache."""
    return cached(OPS.int8_linear, x, *given)


class Counted:
    """How often captured launches were replayed."""

    def __init__(self, monkeypatch):
        self.replays = 0
        replay = CapturedCall.replay

        def counting(capture, x):
            result = replay(capture, x)
            self.replays += result is not None
            return result

        monkeypatch.setattr(CapturedCall, "replay", counting)


@settings(max_examples=20, deadline=None)
@given(
    M=st.sampled_from([1, 2, 7, 16, 31, 33, 65]),
    N=st.sampled_from([1, 5, 63, 96]),
    K=st.sampled_from([1, 7, 64, 130]),
    dtype=st.sampled_from(FLOATS),
    bias=st.booleans(),
    static=st.booleans(),
)
def test_a_replay_gives_the_ops_result(M, N, K, dtype, bias, static):
    given = constants(N, K, bias, static)
    for seed in range(3):
        x = randn(M, K, seed=10 + seed, dtype=dtype)
        assert same(linear(x, given), OPS.int8_linear(x, *given))
    assert captured_shapes(given[0]) == 1


@pytest.mark.parametrize("shape", [(3, 5, 24), (24,), (2, 0, 24), (1, 24)])
def test_any_number_of_dimensions(shape):
    given = constants(12, 24)
    for seed in range(2):
        x = randn(*shape, seed=seed)
        assert same(linear(x, given), OPS.int8_linear(x, *given))


def test_scratch_memory_is_allocated_anew(monkeypatch):
    counted, given = Counted(monkeypatch), constants(40, 130)
    with use_config(SPLIT):
        for seed in range(3):
            x = randn(5, 130, seed=seed)
            assert same(linear(x, given), OPS.int8_linear(x, *given))
        assert counted.replays == 2
    # By another config it is another product.
    linear(x, given)
    assert counted.replays == 2


@pytest.mark.parametrize("M", [40, 70])
def test_descriptors_are_made_for_the_new_memory(M, monkeypatch):
    counted, given = Counted(monkeypatch), constants(40, 144)
    with use_config(DESCRIPTORS):
        for seed in range(3):
            x = randn(M, 144, seed=seed)
            assert same(linear(x, given), OPS.int8_linear(x, *given))
    assert counted.replays == 2


def test_a_sparse_weights_op_is_replayed(monkeypatch):
    counted, mask = Counted(monkeypatch), (torch.arange(4) % 2 == 0).repeat_interleave(16).expand(32, 64).to(DEVICE)
    weight = BlockSparseWeight.from_dense(integers(32, 64), 8, mask, (16, 16))
    op, stored = operands(weight)
    given = (*stored, randn(32).abs(), randn(32), None, "none", None)
    for seed in range(2):
        x = randn(5, 64, seed=seed)
        direct = getattr(OPS, op.__name__)
        assert same(cached(direct, x, *given), direct(x, *given))
    assert counted.replays == 1 and captured_shapes(given[0]) == 1


def test_results_do_not_share_memory():
    given = constants(12, 24)
    results = [linear(randn(2, 24, seed=seed), given) for seed in range(4)]
    kept = [result.clone() for result in results]
    assert all(same(result, copied) for result, copied in zip(results, kept, strict=True))
    assert len({result.data_ptr() for result in results}) == 4


def test_another_memory_layout_is_not_replayed(monkeypatch):
    counted, given = Counted(monkeypatch), constants(12, 24)
    apart, unaligned = randn(24, 4).t(), randn(4 * 24 + 1)[1:].reshape(4, 24)
    for x in (apart, unaligned, randn(4, 24)):
        assert same(linear(x, given), OPS.int8_linear(x, *given))
    assert captured_shapes(given[0]) == 1
    for x in (apart, unaligned):
        assert same(linear(x, given), OPS.int8_linear(x, *given))
    assert counted.replays == 0


def test_constants_that_must_be_copied_are_copied_each_time(monkeypatch):
    counted = Counted(monkeypatch)
    weight, scale, bias, *rest = constants(12, 24)
    converted = (weight, scale, bias.double(), *rest)
    strided = (weight, torch.stack([scale, scale], 1)[:, 0], bias, *rest)
    x = randn(3, 24)
    for constant in (converted, strided):
        for _ in range(2):
            assert same(linear(x, constant), OPS.int8_linear(x, *constant))
    assert counted.replays == 0 and captured_shapes(weight) == 0


def test_an_int8_input_is_replayed(monkeypatch):
    counted = Counted(monkeypatch)
    weight, scale, bias, _, *rest = constants(12, 32)
    given = (weight, scale, bias, torch.full((1,), 0.5, device=DEVICE), *rest)
    for seed in range(2):
        x = integers(3, 32, seed=seed)
        assert same(linear(x, given), OPS.int8_linear(x, *given))
    assert counted.replays == 1


def test_other_arguments_are_another_call(monkeypatch):
    counted, given, x = Counted(monkeypatch), constants(12, 24), randn(3, 24)
    linear(x, given)
    other = (*given[:4], "relu", *given[5:])
    assert same(linear(x, other), OPS.int8_linear(x, *given).relu()) and counted.replays == 0
    assert same(linear(x, other), OPS.int8_linear(x, *given).relu()) and counted.replays == 1


def test_an_equal_argument_is_the_same_call(monkeypatch):
    counted, given, x = Counted(monkeypatch), constants(12, 24), randn(3, 24)
    for count in range(3):
        linear(x, (*given[:4], "".join(["re", "lu"]), *given[5:]))
        assert counted.replays == count


@pytest.mark.parametrize(
    "change",
    [
        lambda weight: weight.t_(),
        lambda weight: weight.resize_(12, 24),
        lambda weight: setattr(weight, "data", weight.view(torch.uint8)),
        lambda weight: setattr(weight, "data", weight[::1, :1].expand(24, 24)),
    ],
    ids=["transposed", "fewer rows", "another dtype", "without strides"],
)
def test_a_weight_that_is_another_in_the_same_memory_is_not_replayed(change, monkeypatch):
    counted, given, x = Counted(monkeypatch), constants(24, 24, bias=False), randn(3, 24)
    linear(x, given), linear(x, given)
    assert counted.replays == 1
    address = given[0].data_ptr()
    change(given[0])
    assert given[0].data_ptr() == address
    with contextlib.suppress(sparseq.InputError):
        linear(x, given)
    assert counted.replays == 1


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
    assert captured_shapes(layer.values) == 1
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
    assert first() is None and captured_shapes(layer.values) == 1


def test_a_constant_in_the_memory_of_x_is_not_captured():
    weight, _, bias, *rest = constants(24, 24)
    x = randn(24, 24)
    given = (weight, x[0], bias, *rest)
    assert same(linear(x, given), OPS.int8_linear(x, *given))
    assert captured_shapes(weight) == 0


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
    assert counted.replays == 0 and captured_shapes(other.values) == 1
    assert same(layer(x), expected)


def test_no_more_shapes_are_captured_than_memory_is_spared_for(monkeypatch):
    monkeypatch.setattr(launch_cache, "MOST_SHAPES", 2)
    counted, layer = Counted(monkeypatch), packed_layer()
    for _ in range(2):
        for rows in (1, 2, 3):
            assert layer(randn(rows, 24)).shape == (rows, 12)
    assert counted.replays == 2 and captured_shapes(layer.values) == 2


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
                if not same(cached(run, inputs[number], *given), expected[number]):
                    wrong.append(number)

    threads = [threading.Thread(target=work, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == [] and captured_shapes(given[0]) == 4 and counted.replays > 600
