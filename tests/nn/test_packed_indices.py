"""A packed embedding takes the indices that a table of rows has, whatever their dtype, and refuses all others."""

import pytest
import torch
from packed_layers import FORMS, embedding
from torch import nn

from sparseq_kernels import InputError

INTEGERS = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_every_integer_dtype_is_an_index(form, dtype):
    table, indices = embedding(*form), torch.tensor([[0, 1, 1], [15, 2, 0]])
    expected = nn.functional.embedding(indices, table.weight)
    torch.testing.assert_close(table(indices.to(dtype)), expected, rtol=1e-6, atol=0)
    assert table(torch.zeros(0, dtype=dtype)).shape == (0, 32)


@pytest.mark.parametrize("index", [-1, -16, 16, 2**40])
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_an_index_without_a_row_is_refused(form, index):
    table = embedding(*form)
    with pytest.raises(IndexError) as plain:
        nn.Embedding(16, 32)(torch.tensor([0, index]))
    with pytest.raises(type(plain.value)) as found:
        table(torch.tensor([0, index]))
    assert isinstance(found.value, InputError) and "outside [0, 16)" in str(found.value)


@pytest.mark.parametrize(
    "wrong", [torch.zeros(2), torch.zeros(2, dtype=torch.bool), torch.zeros(2, dtype=torch.cfloat)]
)
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_what_is_no_integer_is_refused(form, wrong):
    with pytest.raises(RuntimeError) as found:  # as nn.Embedding does
        embedding(*form)(wrong)
    assert isinstance(found.value, InputError) and str(wrong.dtype) in str(found.value)


@pytest.mark.parametrize("wrong", [[0, 1], None, 1, "0"])
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_what_is_no_tensor_is_refused(form, wrong):
    with pytest.raises(TypeError) as found:
        embedding(*form)(wrong)
    assert isinstance(found.value, InputError) and type(wrong).__name__ in str(found.value)
