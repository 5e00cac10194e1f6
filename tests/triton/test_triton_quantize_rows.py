import pytest
import torch
from far_memory import far_rows
from gpu_or_interpreter import DEVICE, FLOATS, both, randn, same
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseq_kernels.reference.quantize_rows import quantize_rows as reference
from sparseq_kernels.triton.quantize_rows import LONGEST, row_scales

SHAPES = [(1, 1), (5, 7), (7, 577), (3, 2048), (2, 3, 63), (859,), (0, 4), (4, 0)]


def check(x: torch.Tensor, bits: int) -> None:
    expected, found = both("quantize_rows", x, bits)
    assert same(found[0], expected[0]) and same(found[1], expected[1])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", FLOATS)
def test_equals_the_reference(shape, dtype):
    check(randn(*shape, dtype=dtype), 8)


@pytest.mark.parametrize("bits", range(2, 17))
def test_every_width(bits):
    check(randn(5, 63) * torch.logspace(-20, 20, 5, device=DEVICE).unsqueeze(1), bits)


@pytest.mark.parametrize("bits,step", [(8, 1.0), (8, 2.0**-40), (16, 2.0**-3), (4, 2.0**30)])
def test_ties_round_to_even(bits, step):
    limit = 2 ** (bits - 1) - 1
    # A maximum of qmax steps makes the scale the step, and halves of it exact.
    x = torch.cat([torch.arange(-limit, limit, max(1, limit // 150)) + 0.5, torch.tensor([float(limit)])])
    check((x * step).to(DEVICE).unsqueeze(0), bits)


@pytest.mark.parametrize("bits", [2, 8, 16])
def test_zeros_the_smallest_and_the_largest_numbers(bits):
    largest = torch.finfo(torch.float32).max
    magnitudes = [0.0, 1e-45, 2.0**-126, 2.0**-101, 2.0**-100, 2.0**-99, 1e30, largest]
    check(randn(1, 9, seed=1).clamp(-1, 1) * torch.tensor(magnitudes, device=DEVICE).unsqueeze(1), bits)


# Not every NaN has the same bits; these end in an integer.
NANS = torch.tensor([0x7FC00055, -0x3FFF01], dtype=torch.int32).view(torch.float32).tolist()


@pytest.mark.parametrize("bad", [float("inf"), -float("inf"), float("nan"), *NANS])
@pytest.mark.parametrize("dtype", FLOATS)
def test_a_row_that_is_not_finite_gets_a_nan_scale_and_spoils_no_other(bad, dtype):
    x = randn(9, 33, dtype=dtype)
    x[4, 32] = bad
    check(x, 8)
    _, (q, scale) = both("quantize_rows", x, 8)
    assert scale.isnan().nonzero().flatten().tolist() == [4] and not q[4].any() and q[5].any()


@pytest.mark.parametrize("place", [0, LONGEST - 1, LONGEST, 2 * LONGEST + 9])
def test_a_row_longer_than_a_program_holds(place):
    x = randn(2, 2 * LONGEST + 10, seed=place)
    x[1, place] = 99.0
    check(x, 16)


@pytest.mark.memcheck
def test_other_layouts():
    x = randn(6, 5, 14)
    for view in (
        x[0].t(),
        x[:, :, :9],
        x[:, 2],
        x.permute(2, 0, 1),
        x[:, :1].expand(6, 4, 14),
        x[::2, ::2, 1:],
        x[:, 3:],
    ):
        check(view, 8)


def test_rows_far_apart():
    x = far_rows(40, torch.float16)
    x.copy_(randn(3, 40))
    check(x, 8)


@pytest.mark.parametrize("K", [37, LONGEST + 3])
def test_scales_of_what_a_mask_keeps(K):
    x, mask = randn(5, K), randn(K, 5, seed=1).t() > 0
    assert not mask.is_contiguous()
    mask[2], mask[3, :-1] = False, False
    mask[3, -1] = True
    x[1, int((~mask[1]).nonzero()[0])] = float("nan")
    for kept in (None, mask):
        expected = reference(x if kept is None else torch.where(kept, x, 0.0), 8)[1]
        assert same(row_scales(x, 8, kept), expected)
    assert same(row_scales(x[:0], 8, mask[:0]), x.new_empty(0))


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 9), st.integers(0, 70), st.integers(2, 16), st.integers(0, 2**31), st.sampled_from(FLOATS))
def test_any_shape_and_bits(rows, columns, bits, seed, dtype):
    check((randn(rows, columns, seed=seed) * 10.0 ** (seed % 7 - 3)).to(dtype), bits)
