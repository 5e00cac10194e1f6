"""Runs that are broken off, and what runs say."""

from typing import Any

import pytest

from sparseq.train import Recipe, compress, trainer
from sparseq.train.progress import Reporter


class Killed(BaseException):
    """Stands for the process's end: nothing in the code under test catches it."""


class Listening(Reporter):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__(silent=True)
        self.said: list[str] = []

    def say(self, message: str) -> None:
        self.said.append(message)


def break_off(recipe: Recipe, after: int, kind: type[BaseException] = Killed) -> None:
    """Runs a recipe and ends it in the step after so many, by this kind of exception."""
    step = trainer.CompressTrainer.training_step

    def dying(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step == after:
            raise kind
        return step(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer.CompressTrainer, "training_step", dying)
        with pytest.raises(kind):
            compress(recipe)
