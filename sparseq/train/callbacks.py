"""Callbacks of the driver alone: the order of rows, and progress. Those for any trainer are in `sparseq.hf`."""

from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sparseq.hf.callbacks import PruningCallback

from .data import SimilarLengths
from .progress import Phase


class RowOrder(TrainerCallback):
    """Sets the epoch of the sampler.

    accelerate does this too, but not for the sampler of a resumed epoch with several processes.
    """

    def __init__(self, sampler: Callable[[], SimilarLengths]) -> None:
        self.sampler = sampler

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.sampler().set_epoch(state.global_step // len(kwargs["train_dataloader"]))


class ShowProgress(TrainerCallback):
    """Shows step, loss (a running mean) and sparsity in the progress bar of the phase."""

    def __init__(self, phase: Phase, loss: Callable[[], float], pruning: PruningCallback | None) -> None:
        self.phase, self.loss, self.pruning = phase, loss, pruning
        self.mean: float | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.phase.total = state.max_steps
        self.phase.update(state.global_step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        loss = self.loss()
        self.mean = loss if self.mean is None else 0.95 * self.mean + 0.05 * loss
        note = f"loss {self.mean:.4f}"
        if self.pruning is not None:
            note += f"  sparsity {self.pruning.sparsity:.2f}"
        self.phase.update(state.global_step, note)
