import pytest
import torch
import torch.nn.functional as F
from far_memory import far_rows
from gpu_or_interpreter import DEVICE, FLOATS, TOLERANCE, both, randn, same
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseq_kernels.reference.quantize_rows import quantize_rows
from sparseq_kernels.triton.quantize_rows import LONGEST

EPS = 1e-12


def check(x, residual, weight, bias, bits=8, eps=EPS, tolerance=None):
    """(q, scale) are those of the y that came with them, to the bit, and that is near the reference's and fp64's."""
    (_, _, expected), (q, scale, y) = both("layer_norm_quantize_rows", x, residual, weight, bias, eps, bits)
    right = quantize_rows(y, bits)
    assert same(q, right[0]) and same(scale, right[1])
    tolerance = TOLERANCE[x.dtype] if tolerance is None else tolerance
    close = {"rtol": tolerance, "atol": max(tolerance / 10, 1e-6), "equal_nan": True}
    torch.testing.assert_close(y, expected, **close)
    total = x.double() + (0 if residual is None else residual.double())
    exact = F.layer_norm(total, weight.shape, weight.double(), bias.double(), eps)
    known = total.isfinite().all(-1)
    torch.testing.assert_close(y.double()[known], exact[known], **close)
    assert known.all() or y[~known].isnan().all()
    return q, scale, y


def parameters(K, dtype=torch.float32):
    return randn(K, seed=8, dtype=dtype), randn(K, seed=9, dtype=dtype)


@pytest.mark.parametrize("shape", [(5, 7), (3, 577), (2, 3, 63), (859,), (7, 128)])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("residual", [True, False])
def test_near_the_reference(shape, dtype, residual):
    x = randn(*shape, dtype=dtype)
    check(x, randn(*shape, seed=1, dtype=dtype) if residual else None, *parameters(shape[-1], dtype))


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (2, 0, 3), (0,)])
def test_nothing_to_normalize(shape):
    expected, found = both("layer_norm_quantize_rows", randn(*shape), None, *parameters(shape[-1]))
    assert all(same(f, e) for f, e in zip(found, expected, strict=True))


@pytest.mark.parametrize("bits", range(2, 17))
def test_every_width(bits):
    check(randn(3, 50), randn(3, 50, seed=1), *parameters(50), bits)


def test_one_value_is_the_bias():
    weight, bias = parameters(1)
    _, _, y = check(randn(5, 1), randn(5, 1, seed=1), weight, bias)
    assert y.eq(bias).all()


def test_mixed_types():
    for x_dtype, other in ((torch.float32, torch.bfloat16), (torch.bfloat16, torch.float32)):
        check(randn(4, 33, dtype=x_dtype), randn(4, 33, seed=1, dtype=other), *parameters(33, other))


@pytest.mark.parametrize("eps", [0.0, 1e-5, 0.5])
def test_eps(eps):
    check(randn(4, 33), None, *parameters(33), eps=eps)


def test_a_mean_far_from_zero():
    # mean(x^2) - mean(x)^2 would keep nothing of this variance in fp32.
    x = (randn(3, 500) + 4096).round(decimals=2)
    check(x, None, *parameters(500), tolerance=2e-2)


def test_rows_without_variance():
    weight, bias = parameters(48)
    x = torch.tensor([0.0, 3.0, -1024.0, 1e-45], device=DEVICE).unsqueeze(1).expand(4, 48)
    _, _, y = check(x, None, weight, bias)
    assert y.eq(bias).all()
    q, scale, _ = check(x, None, weight, torch.zeros_like(bias))
    assert scale.eq(1).all() and not q.any()


@pytest.mark.parametrize("bad", [float("inf"), -float("inf"), float("nan")])
def test_a_row_that_is_not_finite_spoils_no_other(bad):
    x, residual = randn(9, 33), randn(9, 33, seed=1)
    x[4, 32], residual[6, 0] = bad, bad
    q, scale, _ = check(x, residual, *parameters(33))
    assert scale.isnan().nonzero().flatten().tolist() == [4, 6] and not q[4].any() and q[5].any()


@pytest.mark.parametrize("K", [LONGEST, LONGEST + 1, 2 * LONGEST + 77])
def test_rows_longer_than_a_program_holds(K):
    x, residual = randn(2, K, dtype=torch.float16) + 8, randn(2, K, seed=1, dtype=torch.float16)
    x[0, K - 1] = 400.0
    check(x, residual, *parameters(K))


@pytest.mark.memcheck
def test_other_layouts():
    x, weight = randn(6, 5, 14), randn(14, 3)
    for view in (lambda t: t[:, :, :9], lambda t: t[0].t(), lambda t: t[:, 2], lambda t: t.permute(2, 0, 1)):
        K = view(x).shape[-1]
        check(view(x), view(randn(6, 5, 14, seed=1)), weight[:K, 0], weight[:K, 2])
    check(x[0], randn(5, 30, seed=1)[:, 3:17], weight[:, 0], weight[:, 1])
    check(x, x[:, :1].expand(6, 5, 14), weight[:1, 0].expand(14), weight[:, 1])


def test_rows_far_apart():
    x, residual = far_rows(40, torch.float16), far_rows(40, torch.float16, 64)
    x.copy_(randn(3, 40))
    residual.copy_(randn(3, 40, seed=1))
    check(x, residual, *parameters(40))
    check(randn(3, 40), residual, *parameters(40))


@settings(deadline=None, max_examples=20)
@given(
    st.integers(1, 9),
    st.integers(2, 70),
    st.integers(2, 16),
    st.integers(0, 2**31),
    st.sampled_from(FLOATS),
    st.booleans(),
)
def test_any_shape_and_bits(rows, columns, bits, seed, dtype, residual):
    x = randn(rows, columns, seed=seed, dtype=dtype)
    # Apart by far more than rounding, whatever was drawn: a row's variance is not that of noise.
    x[:, 0] += 9
    added = randn(rows, columns, seed=seed + 1, dtype=dtype) if residual else None
    check(x, added, *parameters(columns, dtype), bits)
