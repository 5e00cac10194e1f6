"""Calls that are made again: what was recorded for one input holds for others like it, and for nothing else."""

import copy
import pickle
import weakref

import pytest
import torch
from gpu_or_interpreter import DEVICE, FLOATS, integers, randn, same
from hypothesis import given, settings
from hypothesis import strategies as st

import sparseq
from sparseq.nn import QuantSparseLinear
from sparseq_kernels import Repeated, call, repeated, use_backend
from sparseq_kernels.reference.quantize_rows import quantize_rows
from sparseq_kernels.triton.runtime.gemm_config import GemmConfig, use_config


@pytest.fixture(autouse=True)
def _on_triton():
    torch.manual_seed(0)
    with use_backend("triton"):
        yield


def weights(N, K, bias=True, static=False):
    """The constants of int8_linear."""
    levels, scale = quantize_rows(randn(N, K, seed=1), 8)
    given_scale = torch.full((1,), 0.02, device=DEVICE) if static else None
    return levels, scale, randn(N, seed=2) if bias else None, given_scale, "none", None, None


def recordings(run):
    """How many calls a Repeated has recorded."""
    return len(run._recorded.recordings)


class Counted:
    """How often what was recorded is run."""

    def __init__(self, monkeypatch):
        from sparseq_kernels.triton.runtime.launch_cache import Recording

        self.runs = 0
        run = Recording.run

        def counting(recording, x):
            result = run(recording, x)
            self.runs += result is not None
            return result

        monkeypatch.setattr(Recording, "run", counting)


@settings(max_examples=20, deadline=None)
@given(
    M=st.sampled_from([1, 2, 7, 16, 31, 33, 65]),
    N=st.sampled_from([1, 5, 63, 96]),
    K=st.sampled_from([1, 7, 64, 130]),
    dtype=st.sampled_from(FLOATS),
    bias=st.booleans(),
    static=st.booleans(),
)
def test_every_further_call_is_the_op(M, N, K, dtype, bias, static):
    run, constants = Repeated(), weights(N, K, bias, static)
    for seed in range(3):
        x = randn(M, K, seed=10 + seed, dtype=dtype)
        assert same(run("int8_linear", x, *constants), call("int8_linear", x, *constants))
    assert recordings(run) == 1


@pytest.mark.parametrize("shape", [(3, 5, 24), (24,), (2, 0, 24), (1, 24)])
def test_any_number_of_dimensions(shape):
    run, constants = Repeated(), weights(12, 24)
    for seed in range(2):
        x = randn(*shape, seed=seed)
        assert same(run("int8_linear", x, *constants), call("int8_linear", x, *constants))


def test_a_split_product_and_its_workspace_are_repeated(monkeypatch):
    counted, run, constants = Counted(monkeypatch), Repeated(), weights(40, 130)
    with use_config(GemmConfig(16, 32, 32, num_warps=4, num_stages=2, split_k=3)):
        for seed in range(3):
            x = randn(5, 130, seed=seed)
            assert same(run("int8_linear", x, *constants), call("int8_linear", x, *constants))
        assert counted.runs == 2
    # By another config it is another product.
    run("int8_linear", x, *constants)
    assert counted.runs == 2


def test_results_do_not_share_memory():
    run, constants = Repeated(), weights(12, 24)
    results = [run("int8_linear", randn(2, 24, seed=seed), *constants) for seed in range(4)]
    kept = [result.clone() for result in results]
    assert all(same(result, copied) for result, copied in zip(results, kept, strict=True))
    assert len({result.data_ptr() for result in results}) == 4


def test_what_lies_otherwise_is_not_repeated(monkeypatch):
    counted, run, constants = Counted(monkeypatch), Repeated(), weights(12, 24)
    apart, unaligned = randn(24, 4).t(), randn(4 * 24 + 1)[1:].reshape(4, 24)
    for x in (apart, unaligned, randn(4, 24)):
        assert same(run("int8_linear", x, *constants), call("int8_linear", x, *constants))
    assert recordings(run) == 1
    for x in (apart, unaligned):
        assert same(run("int8_linear", x, *constants), call("int8_linear", x, *constants))
    assert counted.runs == 0


def test_constants_that_must_be_copied_are_copied_each_time(monkeypatch):
    counted, run = Counted(monkeypatch), Repeated()
    levels, scale, bias, *rest = weights(12, 24)
    constants = (levels, scale, bias.double(), *rest)
    strided = (levels, torch.stack([scale, scale], 1)[:, 0], bias, *rest)
    x = randn(3, 24)
    for given_constants in (constants, strided):
        for _ in range(2):
            assert same(run("int8_linear", x, *given_constants), call("int8_linear", x, *given_constants))
    assert counted.runs == 0 and recordings(run) == 0


def test_levels_with_their_scales_are_repeated(monkeypatch):
    counted, run = Counted(monkeypatch), Repeated()
    levels, scale, bias, _, *rest = weights(12, 32)
    constants = (levels, scale, bias, torch.full((1,), 0.5, device=DEVICE), *rest)
    for seed in range(2):
        x = integers(3, 32, seed=seed)
        assert same(run("int8_linear", x, *constants), call("int8_linear", x, *constants))
    assert counted.runs == 1


def packed_layer(inputs=24, outputs=12):
    return sparseq.pack(QuantSparseLinear(inputs, outputs)).to(DEVICE)


def test_a_layers_weights_may_change(monkeypatch):
    counted, layer, x = Counted(monkeypatch), packed_layer(), randn(3, 24)
    before = layer(x)
    assert same(layer(x), before) and counted.runs == 1
    # In place, which the recording reads,
    layer.bias += 1
    torch.testing.assert_close(layer(x), before + 1)
    assert counted.runs == 2
    # and by another tensor, which it is not for.
    layer.bias = torch.zeros_like(layer.bias)
    changed = layer(x)
    assert counted.runs == 2 and not torch.equal(changed, before)
    assert same(layer(x), changed) and counted.runs == 3
    other = packed_layer()
    layer.load_state_dict(other.state_dict())
    assert same(layer(x), other(x))


@pytest.mark.parametrize("name", ["values", "scale", "bias"])
def test_memory_that_was_exchanged_is_seen(name):
    layer, x = packed_layer(), randn(3, 24)
    layer(x), layer(x)
    for _ in range(2):  # The second could come where the first was.
        buffer = layer.get_buffer(name)
        buffer.data = torch.zeros_like(buffer)
    assert same(layer(x), sparseq_call(layer, x))
    assert same(layer(x), sparseq_call(layer, x))


def sparseq_call(layer, x):
    return call("int8_linear", x, layer.values, layer.scale, layer.bias, None, "none", None, None)


def test_a_constant_that_wants_a_gradient_later_gets_it(monkeypatch):
    counted, layer, x = Counted(monkeypatch), packed_layer(), randn(3, 24)
    layer(x), layer(x)
    layer.bias.requires_grad_()
    layer(x).sum().backward()
    assert same(layer.bias.grad, torch.full_like(layer.bias, 3.0)) and counted.runs == 1


def test_weights_that_were_replaced_are_not_kept():
    layer = packed_layer()
    first = weakref.ref(layer.values)
    for rows in (1, 2, 3):
        layer(randn(rows, 24))
        layer.values = layer.values.clone()
    layer(randn(4, 24))
    assert first() is None and recordings(layer._repeated) == 1


def test_constants_of_the_same_memory_as_x_or_with_gradients_are_not_recorded():
    levels, scale, bias, *rest = weights(24, 24)
    x = randn(24, 24)
    for constants in ((levels, x[0], bias, *rest), (levels, scale, bias.requires_grad_(), *rest)):
        run = Repeated()
        assert same(run("int8_linear", x, *constants), call("int8_linear", x, *constants))
        assert recordings(run) == 0


def test_the_first_of_several_results_is_given():
    run, x = Repeated(), randn(3, 24)
    for _ in range(2):
        assert same(run("quantize_rows", x, 8), call("quantize_rows", x, 8))


def test_without_values_there_are_shapes():
    layer = sparseq.pack(QuantSparseLinear(24, 12)).to("meta")
    assert layer(torch.empty(3, 24, device="meta")).shape == (3, 12)


def test_a_replica_records_for_itself():
    layer = packed_layer()
    layer(randn(3, 24))
    replica = layer._replicate_for_data_parallel()
    assert recordings(replica._repeated) == 0 and recordings(layer._repeated) == 1


def test_what_looks_on_is_served(monkeypatch):
    counted, layer, x = Counted(monkeypatch), packed_layer(), randn(3, 24)
    expected = layer(x)
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    stacked = torch.func.vmap(layer)(torch.stack([x, x]))
    assert same(stacked[1], expected)
    assert layer(x.clone().requires_grad_()).shape == expected.shape
    assert same(torch.compile(layer, fullgraph=True, backend="eager")(x), expected)
    assert counted.runs == 0
    with use_backend("reference"):
        torch.testing.assert_close(layer(x), expected)
    assert counted.runs == 0
    assert same(layer(x), layer(x))


def test_results_are_those_of_the_mode_they_are_asked_in(monkeypatch):
    counted, layer, x = Counted(monkeypatch), packed_layer(), randn(3, 24)
    with torch.inference_mode():
        assert layer(x).is_inference()
    y = layer(x)
    assert counted.runs == 1 and not y.is_inference()
    weight = torch.ones(12, device=DEVICE, requires_grad=True)
    (y * weight).sum().backward()
    assert same(weight.grad, y.sum(0))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_copies_record_for_themselves(copied, monkeypatch):
    counted, layer, x = Counted(monkeypatch), packed_layer(), randn(3, 24)
    expected = layer(x)
    other = copied(layer)
    other.bias += 1
    torch.testing.assert_close(other(x), expected + 1)
    assert counted.runs == 0 and recordings(other._repeated) == 1
    assert same(layer(x), expected)


def test_no_more_shapes_are_recorded_than_memory_is_spared_for(monkeypatch):
    monkeypatch.setattr(repeated, "MOST_RECORDED", 2)
    counted, layer = Counted(monkeypatch), packed_layer()
    for _ in range(2):
        for rows in (1, 2, 3):
            assert layer(randn(rows, 24)).shape == (rows, 12)
    assert counted.runs == 2 and recordings(layer._repeated) == 2
