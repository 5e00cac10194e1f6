import pytest
import torch


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
