"""Embeddings that were put in the place of a model's own, and do not fit what its layers take."""

import pytest
import torch
from fused_models import batch, both, close, packed
from torch import nn

from sparseq_kernels import InputError


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


class Odd(nn.Module):
    """Embeddings that give another shape than the inputs have."""

    def __init__(self, plain, change):
        super().__init__()
        self.plain, self.change = plain, change

    def forward(self, *args, **kwargs):
        return self.change(self.plain(*args, **kwargs))


def test_more_rows_than_the_input_has_are_not_lost():
    model = packed(head="Model")
    types = torch.zeros(2, 6, dtype=torch.int64)
    found, expected = both(model, input_ids=batch()["input_ids"][:1, :6], token_type_ids=types)
    assert found.last_hidden_state.shape == expected.last_hidden_state.shape == (2, 6, 32)
    model.embeddings = Odd(model.embeddings, lambda x: torch.cat([x[:, :3], x], 1))
    found, expected = both(model, **batch())
    assert found.last_hidden_state.shape == expected.last_hidden_state.shape == (4, 14, 32)
    close(found.last_hidden_state, expected.last_hidden_state)


def test_embeddings_of_another_width_are_refused():
    model = packed(head="Model")
    model.embeddings = Odd(model.embeddings, lambda x: x[..., :16].contiguous())
    with pytest.raises(InputError):
        model(**batch())
