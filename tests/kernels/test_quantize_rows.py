import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseq_kernels import use_backend

pytestmark = pytest.mark.processor

SHAPES = [(1, 1), (5, 7), (63, 577), (2, 3, 5), (0, 4), (4, 0), (859,)]


def both(x, bits=8):
    """(native result, reference result), after a look at the third backend."""
    with use_backend("reference"):
        expected = torch.ops.sparseq.quantize_rows(x, bits)
    with use_backend("cpu"):
        plain = torch.ops.sparseq.quantize_rows(x, bits)
    assert all(torch.equal(a.nan_to_num(7), b.nan_to_num(7)) for a, b in zip(plain, expected, strict=True))
    with use_backend("native"):
        return torch.ops.sparseq.quantize_rows(x, bits), expected


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("bits", [4, 8, 16])
def test_every_backend_equals_the_reference(shape, dtype, bits):
    (q, scale), (q_ref, scale_ref) = both(torch.randn(shape).to(dtype), bits)
    assert q.shape == shape and scale.shape == shape[:-1]
    assert q.dtype == (torch.int16 if bits == 16 else torch.int8) and scale.dtype == torch.float32
    assert torch.equal(q, q_ref) and torch.equal(scale, scale_ref)


def test_range_and_error_are_half_a_step():
    x = torch.randn(64, 100) * torch.logspace(-20, 20, 64).unsqueeze(1)
    q, scale = torch.ops.sparseq.quantize_rows(x)
    assert q.abs().amax(dim=1).eq(127).all()
    error = (q.double() * scale.double().unsqueeze(1) - x.double()).abs() / scale.double().unsqueeze(1)
    assert error.max() <= 0.5 + 1e-4


def test_ties_round_to_even():
    # With a maximum of 127 the scale is 1, and halves are exact.
    x = torch.tensor([[0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 126.5, 127.0]])
    q, scale = torch.ops.sparseq.quantize_rows(x)
    assert scale.item() == 1 and q.tolist() == [[0, 2, 2, 0, -2, -2, 126, 127]]


@pytest.mark.parametrize("value", [0.0, 1e-45, 2.0**-110])
def test_rows_without_content_have_scale_one(value):
    (q, scale), (q_ref, scale_ref) = both(torch.full((2, 9), value))
    for integers, s in ((q, scale), (q_ref, scale_ref)):
        assert s.tolist() == [1, 1] and not integers.any()


@pytest.mark.parametrize("bad", [float("inf"), -float("inf"), float("nan")])
def test_a_row_that_is_not_finite_gets_a_nan_scale_and_spoils_no_other(bad):
    x = torch.ones(3, 4)
    x[1, 2] = bad
    (q, scale), (q_ref, scale_ref) = both(x)
    assert torch.equal(q, q_ref) and torch.equal(scale, scale_ref) is False
    assert scale.isnan().tolist() == scale_ref.isnan().tolist() == [False, True, False]
    assert not q[1].any() and q[0].eq(127).all()


def test_non_contiguous_rows():
    x = torch.randn(7, 5).t()
    (q, _), (q_ref, _) = both(x)
    assert torch.equal(q, q_ref) and torch.equal(q, torch.ops.sparseq.quantize_rows(x.contiguous())[0])


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 9), st.integers(0, 70), st.integers(2, 16), st.integers(0, 2**31))
def test_any_shape_and_bits(rows, columns, bits, seed):
    x = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * 10 ** (seed % 7 - 3)
    (q, scale), (q_ref, scale_ref) = both(x, bits)
    assert torch.equal(q, q_ref) and torch.equal(scale, scale_ref)
    assert q.numel() == 0 or q.abs().max() <= 2 ** (bits - 1) - 1
