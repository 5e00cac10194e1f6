"""Names of what a batch holds for distillation, besides the student's inputs."""

from collections.abc import Mapping
from typing import Any

TEACHERS = "teacher_input."
"""The prefix of the names of the teacher's inputs, in rows and batches, where they are not the student's."""
LOGITS = "teacher_logits"
"""The teacher's logits, where they were computed before."""
ALPHA = "kd_alpha"
"""The weight of the teacher's loss, where each row has its own."""

LABELS = ("labels", "label", "start_positions", "end_positions")
"""What is no input of an encoder."""


def teachers_inputs(batch: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs of the teacher's forward in a batch, by their own names."""
    return {name.removeprefix(TEACHERS): value for name, value in batch.items() if name.startswith(TEACHERS)}


def students_inputs(batch: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs of the student's forward, labels among them."""
    return {
        name: value for name, value in batch.items() if name not in (LOGITS, ALPHA) and not name.startswith(TEACHERS)
    }
