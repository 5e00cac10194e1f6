"""int8_linear in Triton: the reference's integers to the bit, and its outputs, for any shape, type and config."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from gpu_or_interpreter import DEVICE, FLOATS, TOLERANCE, both, integers, randn, same
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseq_kernels import InputError, use_backend
from sparseq_kernels.numerics import MAX_INT8_DEPTH
from sparseq_kernels.triton.runtime.gemm_config import GemmConfig, use_config

OPS = torch.ops.sparseq
SHAPES = [(1, 1, 1), (33, 5, 577), (70, 40, 64), (0, 8, 8), (8, 0, 8), (8, 8, 0), (40, 8, 0)]
# Sizes that no tile divides.
BEYOND_A_TILE = [pytest.param(*shape, marks=pytest.mark.memcheck) for shape in ((5, 7, 63), (63, 65, 7))]
TILES = GemmConfig(32, 32, 64, num_warps=4, num_stages=2)
GROUPED = GemmConfig(64, 32, 32, num_warps=4, num_stages=2, group_m=2)
WIDE = GemmConfig(32, 256, 64, num_warps=4, num_stages=2)
EIGHT_PARTS = GemmConfig(32, 256, 64, num_warps=2, num_stages=2)
DESCRIPTORS = GemmConfig(64, 128, 64, num_warps=4, num_stages=2, group_m=2, descriptors=True)
SPLIT = GemmConfig(16, 32, 32, num_warps=4, num_stages=2, split_k=3)


def sums(x, weight, config=None):
    """The int32 sums of an int8 x: with scales of 1 and no bias the fp32 output is these, exactly below 2^24."""
    one = torch.ones(1, device=DEVICE)
    with use_backend("triton"), use_config(config):
        return OPS.int8_linear(x, weight, one.expand(weight.shape[0]).contiguous(), None, one)


@pytest.mark.parametrize("M,N,K", [*SHAPES, *BEYOND_A_TILE])
def test_sums_are_exact(M, N, K):
    x, w = integers(M, K), integers(N, K, seed=1)
    assert same(sums(x, w), (x.double() @ w.double().t()).float())


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 200), st.booleans(), st.integers(0, 9))
def test_sums_are_exact_for_any_shape(M, N, K, transposed, seed):
    x = integers(K, M, seed=seed).t() if transposed else integers(M, K, seed=seed)
    w = integers(N, K, seed=seed + 1)
    assert same(sums(x, w), (x.double() @ w.double().t()).float())


def test_extremes_do_not_saturate():
    x = torch.full((3, 512), 127, dtype=torch.int8, device=DEVICE)
    w = -x[:2]
    assert sums(x, w).eq(-127 * 127 * 512).all() and sums(x.repeat(20, 1), w).eq(-127 * 127 * 512).all()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("M,N,K", [*SHAPES, *BEYOND_A_TILE])
def test_fp32_outputs_are_the_references_to_the_bit(M, N, K, dtype):
    x, w, scale, bias = randn(M, K, dtype=dtype), integers(N, K), randn(N).abs() * 0.01, randn(N, seed=1)
    assert same(*reversed(both("int8_linear", x, w, scale, bias, None, "relu", torch.float32)))
    static = torch.tensor([0.013], device=DEVICE)
    assert same(*reversed(both("int8_linear", x, w, scale, bias, static, "none", torch.float32)))


@pytest.mark.parametrize("config", [TILES, GROUPED, WIDE, EIGHT_PARTS, DESCRIPTORS])
@pytest.mark.parametrize("M,N,K", [(70, 300, 130), (33, 33, 64), (200, 70, 144)])
def test_every_kind_of_config_gives_the_same_bits(config, M, N, K):
    x, w, scale, bias = randn(M, K), integers(N, K), randn(N).abs(), randn(N, seed=1)
    with use_config(config):
        expected, found = both("int8_linear", x, w, scale, bias)
    assert same(found, expected)


@pytest.mark.parametrize("out_dtype", FLOATS)
def test_a_tile_in_any_number_of_parts_gives_the_same_bits(out_dtype):
    """The last columns of a tile are beyond the outputs, in each number of parts that a type has."""
    x, w, scale, bias = randn(40, 64), integers(300, 64), randn(300).abs(), randn(300, seed=1)
    assert EIGHT_PARTS.output_parts(4) == 8 and EIGHT_PARTS.output_parts(2) == 4
    assert GROUPED.output_parts(4) == GROUPED.output_parts(2) == 1
    found = []
    for config in (EIGHT_PARTS, GROUPED):
        with use_backend("triton"), use_config(config):
            found.append(OPS.int8_linear(x, w, scale, bias, None, "relu", out_dtype))
    assert same(*found)


def test_what_lies_apart_in_memory_is_not_described():
    """Rows of 144 values, 150 apart: no descriptor can say so."""
    x, w = integers(40, 150)[:, :144], integers(20, 150, seed=1)[:, :144]
    expected = (x.double() @ w.double().t()).float()
    assert same(sums(x, w, DESCRIPTORS), expected) and same(sums(x.contiguous(), w, DESCRIPTORS), expected)


@pytest.mark.parametrize("M", [5, 70])
def test_vectors_with_gaps(M):
    """Every other value of a bias and of scales."""
    x, w = randn(M, 40), integers(20, 40)
    scale, bias, rows = randn(40).abs()[::2], randn(40, seed=1)[::2], randn(2 * M, seed=2).abs()[::2]
    expected, found = both("int8_linear", x, w, scale, bias)
    assert same(found, expected)
    expected, found = both("int8_linear", integers(M, 40, seed=3), w, scale, bias, rows)
    assert same(found, expected)


@pytest.mark.parametrize("M", [1, 16, 17, 32])
@pytest.mark.parametrize("N,K", [(20, 5), (40, 96), (20, 128), (40, 130)])
def test_sharing_the_depth_gives_the_same_bits(M, N, K):
    x, w, scale, bias = randn(M, K), integers(N, K), randn(N).abs(), randn(N, seed=1)
    for input_scale in (None, torch.tensor([0.02], device=DEVICE)):
        with use_config(SPLIT):
            expected, found = both("int8_linear", x, w, scale, bias, input_scale)
        assert same(found, expected)


@pytest.mark.parametrize("M", [3, 40])
@pytest.mark.parametrize("per_row", [False, True])
def test_int8_activations_are_taken_as_they_are(M, per_row):
    x, w, scale = integers(M, 70), integers(9, 70, seed=1), randn(9).abs()
    input_scale = randn(M if per_row else 1, seed=2).abs()
    assert same(*reversed(both("int8_linear", x, w, scale, None, input_scale)))
    with use_backend("triton"), pytest.raises(InputError, match="int8 activations need their scale"):
        OPS.int8_linear(x, w, scale)


@pytest.mark.parametrize("M", [3, 40])
@pytest.mark.parametrize("activation", ["none", "relu", "gelu", "gelu_tanh"])
@pytest.mark.parametrize("dtype", FLOATS)
def test_activations_against_fp64(M, activation, dtype):
    x, w, scale, bias = randn(M, 63).to(dtype), integers(17, 63), randn(17).abs() * 0.01, randn(17, seed=1)
    with use_backend("reference"):
        levels, rows = OPS.quantize_rows(x)
    exact = (levels.double() * rows.double().unsqueeze(-1)) @ (w.double() * scale.double().unsqueeze(1)).t() + bias
    act = {"none": lambda v: v, "relu": F.relu, "gelu": F.gelu, "gelu_tanh": lambda v: F.gelu(v, approximate="tanh")}
    with use_backend("triton"):
        found = OPS.int8_linear(x, w, scale, bias, None, activation)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), act[activation](exact), rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("M", [3, 40])
@pytest.mark.parametrize("split", [False, True])
@pytest.mark.memcheck
def test_requantized_outputs(M, split):
    x, w, scale, bias = randn(M, 96), integers(40, 96), randn(40).abs() * 0.01, randn(40, seed=1)
    to = torch.tensor([0.05], device=DEVICE)
    with use_config(SPLIT if split and M == 3 else None):
        expected, found = both("int8_linear", x, w, scale, bias, None, "relu", None, to)
    assert found.dtype == torch.int8 and same(found, expected) and found.abs().max() == 127


@pytest.mark.parametrize("M", [4, 40])
def test_ties_round_to_even(M):
    # With the row's maximum 127 the scale is 1, so that k + 0.5 is a tie.
    x = (torch.arange(96, device=DEVICE) - 48).float().add(0.5).repeat(M, 1)
    x[:, 0] = 127.0
    w = integers(33, 96)
    expected, found = both("int8_linear", x, w, torch.ones(33, device=DEVICE))
    assert same(found, expected)
    static, found = both("int8_linear", x, w, torch.ones(33, device=DEVICE), None, torch.ones(1, device=DEVICE))
    assert same(found, static) and same(found, expected)


@pytest.mark.parametrize("M", [6, 40])
@pytest.mark.parametrize("static", [False, True])
def test_zeros_denormals_infinities_and_nans(M, static):
    x = randn(M, 40)
    x[0] = 0
    x[1] = 1e-40
    x[2, 3], x[3, 3], x[4, 3] = float("inf"), float("nan"), -float("inf")
    x[5] = 3e38
    scale = torch.tensor([0.02], device=DEVICE) if static else None
    expected, found = both("int8_linear", x, integers(9, 40), randn(9).abs(), randn(9, seed=1), scale)
    assert same(found, expected)
    assert static or (found[[2, 3, 4]].isnan().all() and found[0].isfinite().all() and found[1].isfinite().all())


@pytest.mark.parametrize("M", [5, 40])
def test_inputs_that_are_not_contiguous(M):
    w, scale = integers(24, 140)[::2, ::2], randn(12).abs()
    assert not w.is_contiguous()
    wide = randn(M, 200)
    by_columns = wide.t().contiguous().t()[:, :70]
    for x in (wide[:, 60:130], by_columns, wide[:, ::2][:, :70], randn(2, 70, M).transpose(1, 2)):
        assert same(*reversed(both("int8_linear", x, w, scale)))


def test_rows_far_apart_are_found():
    # Untouched memory costs nothing: 17 rows 2^27 values apart, the last at an offset that no 32-bit integer holds.
    far = torch.empty(0, dtype=torch.int8, device=DEVICE)
    try:
        torch.utils.deterministic.fill_uninitialized_memory = False
        far = torch.empty(2**31 + 64, dtype=torch.int8, device=DEVICE)
    finally:
        torch.utils.deterministic.fill_uninitialized_memory = True
    x = far.as_strided((17, 40), (2**27, 1))
    x.copy_(integers(17, 40))
    w = integers(8, 40, seed=1)
    assert same(sums(x, w), (x.double() @ w.double().t()).float())
    assert same(sums(w, x), (w.double() @ x.double().t()).float())


def test_repeated_runs_agree_to_the_bit():
    x, w, scale = randn(20, 300), integers(40, 300), randn(40).abs()
    with use_backend("triton"), use_config(SPLIT):
        first = OPS.int8_linear(x, w, scale)
        assert all(same(OPS.int8_linear(x, w, scale), first) for _ in range(3))


def test_a_depth_that_could_overflow_is_refused():
    x = torch.zeros(1, MAX_INT8_DEPTH + 1, dtype=torch.int8, device=DEVICE)
    with pytest.raises(InputError, match="could overflow"):
        sums(x, x)


@pytest.mark.parametrize("in_dtype,out_dtype", list(itertools.product([torch.int8, torch.bfloat16], FLOATS)))
def test_the_output_has_the_type_that_was_asked_for(in_dtype, out_dtype):
    x = integers(40, 32) if in_dtype == torch.int8 else randn(40, 32, dtype=in_dtype)
    scale = torch.ones(1, device=DEVICE) if in_dtype == torch.int8 else None
    expected, found = both("int8_linear", x, integers(9, 32), randn(9).abs(), None, scale, "none", out_dtype)
    assert found.dtype == out_dtype
    torch.testing.assert_close(found, expected, rtol=TOLERANCE[out_dtype], atol=0)
