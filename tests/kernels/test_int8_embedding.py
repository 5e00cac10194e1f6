import pytest
import torch

from sparseq_kernels import use_backend
from sparseq_kernels.backends import runnable


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16])
@pytest.mark.parametrize("shape", [(), (3,), (2, 5), (0,)])
def test_rows_are_dequantized(dtype, shape):
    limit = torch.iinfo(dtype).max
    weight, scale = torch.randint(-limit, limit + 1, (11, 7), dtype=dtype), torch.rand(11)
    indices = torch.randint(0, 11, shape)
    rows = torch.ops.sparseq.int8_embedding(indices, weight, scale)
    assert rows.shape == (*shape, 7) and rows.dtype == torch.float32
    assert torch.equal(rows, weight[indices].float() * scale[indices].unsqueeze(-1))
    assert torch.ops.sparseq.int8_embedding(indices, weight, scale, torch.bfloat16).dtype == torch.bfloat16


@pytest.mark.parametrize("backend", runnable())
@pytest.mark.parametrize("name", ["uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"])
def test_indices_of_every_integer_dtype(backend, name):
    weight, scale = torch.randint(-127, 128, (11, 7), dtype=torch.int8), torch.rand(11)
    known = torch.tensor([[0, 10, 1], [1, 1, 3]])
    with use_backend(backend):
        rows = torch.ops.sparseq.int8_embedding(known.to(getattr(torch, name)), weight, scale)
    assert torch.equal(rows, weight[known].float() * scale[known].unsqueeze(-1))
