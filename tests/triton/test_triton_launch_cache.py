"""The launch cache: launches captured for one input are replayed for others like it, and for nothing else."""

import contextlib

import pytest
import torch
from gpu_or_interpreter import DEVICE, FLOATS, integers, randn, same
from hypothesis import given, settings
from hypothesis import strategies as st
from launch_cache_calls import DESCRIPTORS, Counted, constants, linear

import sparseq
from sparseq_kernels.formats import BlockSparseWeight
from sparseq_kernels.sparse_dispatch import operands
from sparseq_kernels.triton.int8_linear import CACHE
from sparseq_kernels.triton.runtime.gemm_config import GemmConfig, use_config

OPS = torch.ops.sparseq

SPLIT = GemmConfig(16, 32, 32, num_warps=4, num_stages=2, split_k=3)

pytestmark = pytest.mark.usefixtures("on_triton")


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
    assert CACHE.captured_shapes(given[0]) == 1


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
        assert same(CACHE(direct, x, *given), direct(x, *given))
    assert counted.replays == 1 and CACHE.captured_shapes(given[0]) == 1


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
    assert CACHE.captured_shapes(given[0]) == 1
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
    assert counted.replays == 0 and CACHE.captured_shapes(weight) == 0


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
