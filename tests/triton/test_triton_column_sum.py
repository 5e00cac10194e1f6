"""Column sums, the gradient of a bias: all rows counted once, whatever programs share them."""

import pytest
import torch
from gpu_or_interpreter import DEVICE, FLOATS, TOLERANCE, integers, randn, same

from sparseq_kernels.triton import column_sum as under_test
from sparseq_kernels.triton.column_sum import column_sum


@pytest.mark.parametrize("M", [1, 2, 33, 256, pytest.param(257, marks=pytest.mark.memcheck), 1030])
@pytest.mark.parametrize("N", [1, 63, 130])
def test_every_row_is_counted_once(M: int, N: int) -> None:
    x = integers(M, N).float()
    assert same(column_sum(x, torch.float32), x.sum(0))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("out_dtype", FLOATS)
def test_sums_are_of_fp32(dtype: torch.dtype, out_dtype: torch.dtype) -> None:
    x = randn(300, 65, dtype=dtype)
    found, expected = column_sum(x, out_dtype), x.double().sum(0)
    assert found.dtype == out_dtype
    torch.testing.assert_close(found.double(), expected, rtol=TOLERANCE[out_dtype], atol=1e-4)


def test_rows_may_lie_apart_or_be_one() -> None:
    x = integers(300, 80).float()[:, :70]
    assert same(column_sum(x, torch.float32), x.contiguous().sum(0))
    assert same(column_sum(x[:1].expand(300, 70), torch.float32), 300 * x[0])


def test_nothing_to_sum() -> None:
    assert same(column_sum(torch.zeros(0, 5, device=DEVICE), torch.float32), torch.zeros(5, device=DEVICE))
    assert column_sum(torch.zeros(5, 0, device=DEVICE), torch.float32).shape == (0,)


def test_programs_that_get_no_rows_add_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(under_test, "FEWEST", 1)
    x = integers(260, 3).float()
    assert same(column_sum(x, torch.float32), x.sum(0))


def test_a_number_that_is_none_reaches_its_column_alone() -> None:
    x = randn(300, 4)
    x[299, 1] = float("nan")
    assert column_sum(x, torch.float32).isnan().tolist() == [False, True, False, False]
