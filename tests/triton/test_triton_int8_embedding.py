import pytest
import torch
from far_memory import far_rows
from gpu_or_interpreter import DEVICE, TOLERANCE, integers, randn, same
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseq_kernels import use_backend
from sparseq_kernels.triton import int8_embedding as triton

OP = torch.ops.sparseq.int8_embedding


def check(indices, weight, scale, dtype=None):
    with use_backend("reference"):
        expected = OP(indices, weight, scale, dtype)
    with use_backend("triton"):
        found = OP(indices, weight, scale, dtype)
    if found.dtype is torch.bfloat16 and DEVICE == "cpu":
        torch.testing.assert_close(found, expected, rtol=TOLERANCE[found.dtype], atol=0, equal_nan=True)
    else:
        assert same(found, expected)


def draw(V, *shape, seed=0):
    """Indices in [0, V)."""
    return torch.randint(V, shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


@pytest.mark.parametrize("D", [1, 5, 7, 63, 256, 577])
@pytest.mark.parametrize("weight_dtype", [torch.int8, torch.int16])
def test_widths(D, weight_dtype):
    weight = integers(13, D).to(weight_dtype) * (1 if weight_dtype is torch.int8 else 257)
    check(draw(13, 11), weight, randn(13))


@pytest.mark.parametrize("shape", [(), (1,), (2, 5), (3, 1, 4), (0,), (2, 0)])
def test_shapes(shape):
    check(draw(9, *shape), integers(9, 7), randn(9))


UNSIGNED = [torch.uint8, torch.uint16, torch.uint32, torch.uint64]


@pytest.mark.parametrize("dtype", [*UNSIGNED, torch.int8, torch.int16, torch.int32, torch.int64])
def test_index_types(dtype):
    known = torch.tensor([[0, 199, 127], [3, 1, 0]] if dtype in UNSIGNED else [[0, 126, 72], [3, 1, 0]])
    check(known.to(DEVICE, dtype), integers(200, 9), randn(200))


@pytest.mark.parametrize("dtype", [None, torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("scale_dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_types(dtype, scale_dtype):
    check(draw(9, 5), integers(9, 7), randn(9, dtype=scale_dtype), dtype)


def test_an_index_outside_the_table_gives_nan_and_spoils_no_other_row():
    weight, scale = integers(11, 300), randn(11)
    outside = [11, -1, -11, -12, 2**31, 2**40, -(2**62), 2**32]
    # On a CPU, as in the interpreter, the op refuses such indices before the kernel gets them.
    run = triton.int8_embedding
    found = run(torch.tensor([0, *outside, 10], device=DEVICE), weight, scale, None)
    assert found[1:-1].isnan().all()
    assert torch.equal(found[0], weight[0] * scale[0]) and torch.equal(found[-1], weight[10] * scale[10])
    assert run(torch.zeros(3, dtype=torch.int64, device=DEVICE), weight[:0], scale[:0], None).isnan().all()


def test_a_scale_that_is_nan_or_infinite():
    scale = torch.tensor([float("nan"), float("inf"), -1.0], device=DEVICE)
    check(draw(3, 20), torch.tensor([[1, -1], [0, 5], [0, 127]], dtype=torch.int8, device=DEVICE), scale)


@pytest.mark.memcheck
def test_other_layouts():
    weight, scale, indices = integers(40, 30), randn(80), draw(15, 6, 4)
    check(indices.t(), weight[:15], scale[:15])
    check(indices[:, ::2], weight.t()[5:20, ::2], scale[:30:2])
    check(indices[:1].expand(5, 4), weight[::2, 3:], scale[:1].expand(20))


def test_tables_without_columns():
    check(draw(3, 4), integers(3, 0), randn(3))


def test_rows_far_apart():
    weight = far_rows(40, torch.int8)
    weight.copy_(integers(3, 40))
    check(torch.tensor([1, 0, 2], device=DEVICE), weight, randn(3))
    check(torch.tensor([1, 0, 2], device=DEVICE), weight.t()[:3], randn(3))


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(0, 5), max_size=3), st.integers(1, 300), st.integers(0, 70), st.integers(0, 2**31))
def test_any_shape(shape, V, D, seed):
    check(draw(V, *shape, seed=seed), integers(V, D, seed=seed), randn(V, seed=seed))
