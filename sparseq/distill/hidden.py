"""The hidden-state loss, after TinyBERT (Jiao et al. 2020, equation 8) with its uniform layer map."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sparseq.errors import InputError


def layer_map(student_layers: int, teacher_layers: int) -> tuple[tuple[int, int], ...]:
    """(student, teacher) pairs of layers, counted from 1, evenly spaced: (1, 2), (2, 4), (3, 6) for 3 and 6.

    Raises InputError when the student has more layers than the teacher.
    """
    if student_layers > teacher_layers:
        raise InputError(
            f"hidden states of {student_layers} student layers cannot be mapped to {teacher_layers} teacher layers: "
            "use a deeper teacher, or leave the hidden-state loss out (--hidden-loss 0)"
        )
    return tuple((i, round(i * teacher_layers / student_layers)) for i in range(1, student_layers + 1))


class HiddenStates(nn.Module):
    """A forward hook on the student that returns the hidden states to compare with those of the teacher.

    It selects the states of the mapped layers and, if the widths of the two models differ, projects each with its own
    linear layer. As a submodule of the student (`attach`) its weights are trained and checkpointed with the student. As
    a hook it runs inside the student's forward, which DistributedDataParallel requires for trained weights.
    """

    name = "hidden_projection"

    def __init__(self, layers: Sequence[int], student_width: int, teacher_width: int) -> None:
        super().__init__()
        self.layers = tuple(layers)
        width = student_width, teacher_width
        same = student_width == teacher_width
        self.projections = nn.ModuleList(nn.Identity() if same else nn.Linear(*width) for _ in self.layers)

    def attach(self, student: nn.Module) -> None:
        """Makes this a submodule and forward hook of the student; `detach` undoes both."""
        student.add_module(self.name, self)
        self._hook = student.register_forward_hook(self._replace)

    def detach(self, student: nn.Module) -> None:
        self._hook.remove()
        delattr(student, self.name)

    def _replace(self, module: nn.Module, inputs: Any, outputs: Any) -> Any:
        if getattr(outputs, "hidden_states", None) is not None:
            pairs = zip(self.projections, self.layers, strict=True)
            outputs.hidden_states = tuple(project(outputs.hidden_states[i]) for project, i in pairs)
        return outputs


def hidden_state_loss(student: Sequence[Tensor], teacher: Sequence[Tensor], attention_mask: Tensor) -> Tensor:
    """Mean squared error between paired hidden states [N, L, H], averaged over layers; a scalar in fp32.

    attention_mask [N, L] is 1 for tokens and 0 for padding; padding does not count.
    """
    kept = attention_mask.bool()
    losses = [(s[kept].float() - t[kept].float()).square().mean() for s, t in zip(student, teacher, strict=True)]
    return torch.stack(losses).mean()
