"""The loss on hidden states: which layers are compared, and what is projected."""

import pytest
import torch
from torch import nn

from sparseq.distill import (
    HiddenStates,
    hidden_state_loss,
    layer_map,
)
from sparseq.errors import InputError


def test_layer_map() -> None:
    assert layer_map(3, 6) == ((1, 2), (2, 4), (3, 6))
    assert layer_map(4, 12) == ((1, 3), (2, 6), (3, 9), (4, 12))
    assert layer_map(2, 2) == ((1, 1), (2, 2))
    assert layer_map(3, 4) == ((1, 1), (2, 3), (3, 4))
    with pytest.raises(InputError, match="4 student layers cannot be mapped to 2"):
        layer_map(4, 2)


def test_hidden_state_loss_ignores_padding() -> None:
    student, teacher = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    wanted = torch.cat([(student - teacher)[0, :2], (student - teacher)[1, :1]]).square().mean()
    torch.testing.assert_close(hidden_state_loss([student], [teacher], mask), wanted)
    student[0, 2] = torch.inf
    torch.testing.assert_close(hidden_state_loss([student], [teacher], mask), wanted)


class Outputs:
    def __init__(self, hidden_states: tuple[torch.Tensor, ...]) -> None:
        self.hidden_states = hidden_states


class Encoder(nn.Module):
    def forward(self, x: torch.Tensor) -> Outputs:
        return Outputs((x, x + 1, x + 2))


def test_hidden_states_projects_only_where_widths_differ_and_detaches() -> None:
    student, x = Encoder(), torch.randn(2, 3, 4)
    hidden = HiddenStates([1, 2], 4, 4)
    hidden.attach(student)
    assert all(torch.equal(a, b) for a, b in zip(student(x).hidden_states, (x + 1, x + 2), strict=True))
    hidden.detach(student)
    assert len(student(x).hidden_states) == 3 and not list(student.children())
    wider = HiddenStates([2], 4, 6)
    wider.attach(student)
    [state] = student(x).hidden_states
    assert state.shape == (2, 3, 6)
    assert {name for name, _ in student.named_parameters()} == {
        "hidden_projection.projections.0.weight", "hidden_projection.projections.0.bias",
    }  # fmt: skip
