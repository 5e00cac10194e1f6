"""A recipe with everything that must be given."""

from typing import Any

from sparseq.train import Recipe


def full(**changes: Any) -> Recipe:
    return Recipe.from_dict({"model": "tiny", "task": "sst2", "teacher": "t", "out": "out", **changes}).validate()
