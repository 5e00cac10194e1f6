import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseq_kernels import InputError, use_backend
from sparseq_kernels.cpu.int8_linear import int8_matmul
from sparseq_kernels.numerics import MAX_INT8_DEPTH
from sparseq_kernels.reference.int8_linear import int8_matmul as exact_matmul

pytestmark = pytest.mark.processor
OPS = torch.ops.sparseq
SIZES = [(1, 1, 1), (5, 7, 63), (577, 63, 5), (0, 8, 8), (8, 0, 8), (8, 8, 0), (33, 859, 2), (16, 384, 1536)]


def integers(*shape, seed=0):
    return torch.randint(-127, 128, shape, dtype=torch.int8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("M,K,N", SIZES)
def test_accumulators_are_exact(M, K, N):
    x, w = integers(M, K), integers(N, K, seed=1)
    expected = x.long() @ w.long().t()
    assert torch.equal(int8_matmul(x, w).long(), expected) and torch.equal(exact_matmul(x, w).long(), expected)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 40), st.integers(0, 300), st.integers(0, 40), st.booleans(), st.integers(0, 9))
def test_accumulators_are_exact_for_any_shape(M, K, N, transposed, seed):
    x = integers(K, M, seed=seed).t() if transposed else integers(M, K, seed=seed)
    w = integers(N, K, seed=seed + 1)
    assert torch.equal(int8_matmul(x, w).long(), x.long() @ w.long().t())


def test_extremes_do_not_saturate():
    x, w = torch.full((3, 4096), 127, dtype=torch.int8), torch.full((2, 4096), 127, dtype=torch.int8)
    assert int8_matmul(x, w).eq(127 * 127 * 4096).all() and int8_matmul(x, -w).eq(-127 * 127 * 4096).all()


@pytest.mark.parametrize("activation", ["none", "relu", "gelu", "gelu_tanh"])
@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_against_fp64(activation, static, dtype):
    x, w, scale, bias = torch.randn(3, 5, 63).to(dtype), integers(17, 63), torch.rand(17) * 0.01, torch.randn(17)
    # A power of two, so that what is a tie in fp32 is one in fp64.
    input_scale = torch.tensor([2.0**-6]) if static else None
    y = OPS.int8_linear(x, w, scale, bias, input_scale, activation)
    with use_backend("reference"):
        reference = OPS.int8_linear(x, w, scale, bias, input_scale, activation)
    if static:
        q = (x.double() / input_scale.double()).round().clamp(-127, 127) * input_scale.double()
    else:
        levels, rows = OPS.quantize_rows(x)
        q = levels.double() * rows.double().unsqueeze(-1)
    act = {"none": lambda v: v, "relu": F.relu, "gelu": F.gelu, "gelu_tanh": lambda v: F.gelu(v, approximate="tanh")}
    expected = act[activation](q @ (w.double() * scale.double().unsqueeze(1)).t() + bias)
    tolerance = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}[dtype]
    assert y.dtype == dtype and y.shape == (3, 5, 17)
    torch.testing.assert_close(y.double(), expected, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(y, reference, rtol=tolerance, atol=tolerance)


def test_int8_activations_are_taken_as_they_are():
    x, w, scale = integers(4, 9), integers(3, 9), torch.rand(3)
    rows = torch.rand(4)
    y = OPS.int8_linear(x, w, scale, None, rows)
    torch.testing.assert_close(y, (x.float() @ w.float().t()) * rows.unsqueeze(1) * scale)
    with pytest.raises(InputError, match="int8 activations need their scale"):
        OPS.int8_linear(x, w, scale)


def test_a_row_of_nan_stays_nan_and_alone():
    x = torch.randn(3, 8)
    x[1, 0] = float("nan")
    y = OPS.int8_linear(x, integers(4, 8), torch.rand(4))
    assert y[1].isnan().all() and y[0].isfinite().all() and y[2].isfinite().all()


def test_a_depth_that_could_overflow_is_refused():
    x = torch.zeros(1, MAX_INT8_DEPTH + 1, dtype=torch.int8)
    with pytest.raises(InputError, match="could overflow"):
        int8_matmul(x, x)


def test_repeated_runs_agree_bit_for_bit():
    x, w, scale = torch.randn(64, 384), integers(384, 384), torch.rand(384)
    assert all(torch.equal(OPS.int8_linear(x, w, scale), OPS.int8_linear(x, w, scale)) for _ in range(3))
