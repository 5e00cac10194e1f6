import pytest
import torch
from torch import Tensor, nn

from sparseq_kernels.numerics import mask_, masked

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def weights(dtype):
    weight = torch.randn(9, 8).to(dtype)
    weight[0, :4] = torch.tensor([float("nan"), float("inf"), -float("inf"), -0.0])
    weight[1] = weight[0]
    return weight


def mask():
    kept = torch.rand(9, 8) > 0.5
    kept[0], kept[1] = False, True
    return kept


@pytest.mark.processor
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("turned", [False, True])
def test_bits_are_those_of_masked(dtype, turned):
    weight, kept = weights(dtype), mask()
    expected = masked(weight, kept)
    given = weight.t().contiguous().t() if turned else weight.clone()
    result = mask_(given, kept)
    assert result is given
    integers = {8: torch.int64, 4: torch.int32, 2: torch.int16}[dtype.itemsize]
    assert torch.equal(given.contiguous().view(integers), expected.view(integers))
    assert not given[0].any() and not given[0].signbit().any()


def test_a_parameter_counts_the_change():
    """So that autograd and what was derived from the weight see it."""
    weight, kept = nn.Parameter(torch.randn(9, 8)), mask()
    before = weight._version
    mask_(weight, kept)
    assert weight._version > before and weight.requires_grad and weight.is_leaf


class Subclass(Tensor):
    pass


@pytest.mark.parametrize("make", [lambda w: w.as_subclass(Subclass), lambda w: w.to("meta")])
def test_other_tensors_by_torchs_own_operation(make, monkeypatch):
    called = []
    own = Tensor.masked_fill_
    monkeypatch.setattr(Tensor, "masked_fill_", lambda *args: called.append(args) or own(*args))
    weight = torch.randn(9, 8)
    mask_(weight, mask())
    assert not called
    given = make(weight)
    mask_(given, mask().to(given.device))
    assert called
