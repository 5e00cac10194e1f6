"""Callbacks between optimizer steps: pruning by the schedule, the start of quantization, and progress."""

import math
from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sparseq.nn import (
    MaskedWeight,
    QuantSparseLinear,
    calibrate,
    fit_weight_scales,
    named_layers,
    share_static_scales,
    smooth,
)
from sparseq.prune import Pruner

from .data import SimilarLengths
from .precision import arithmetic
from .progress import Phase


class QuantizationStart(TrainerCallback):
    """Starts quantization at step `start`, or with None after the last step.

    It enables quantization, sets learned scales from the weights, and calibrates activations. calibration: the method
    of `calibrate`, which static ranges follow afterwards. fit, alpha: of post-training quantization, whether scales are
    those of `fit_weight_scales`, and the alpha of `smooth`; None does not smooth.

    All of this depends only on the step and the weights, so that a resumed run does the same as an uninterrupted one.
    If the start is after the last step, `finish` does it: post-training quantization.
    """

    def __init__(
        self,
        model: nn.Module,
        start: int | None,
        batches: Callable[[], Iterable[dict[str, Tensor]]],
        calibration: str = "max",
        *,
        fit: bool = False,
        alpha: float | None = None,
    ) -> None:
        self.model, self.batches, self.calibration, self.fit, self.alpha = model, batches, calibration, fit, alpha
        self.start = math.inf if start is None else start
        found = (layer for _, layer in named_layers(model) if isinstance(layer, MaskedWeight))
        self.layers = [layer for layer in found if layer.bits is not None]  # without bits, only pruning

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.global_step == 0 and self.start == 0:
            self.begin()
        for layer in self.layers:
            if isinstance(layer, QuantSparseLinear):
                layer.range_follows = self.calibration  # is not part of a checkpoint
        self._set(state.global_step >= self.start)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step == self.start:
            self.begin()
        elif state.global_step > self.start:
            share_static_scales(self.model)

    def finish(self, steps: int) -> None:
        """After a training of this many steps: quantizes if the training did not reach the start."""
        if steps < self.start:
            self.begin()
        self._set(True)

    def begin(self) -> None:
        """Sets every scale anew from the current weights and some batches, and starts quantizing."""
        training, place = self.model.training, next(self.model.parameters()).device
        with arithmetic(place):  # as it is evaluated
            if self.alpha is not None:
                smooth(self.model.eval(), self.batches(), self.alpha)
            self._set(True)
            for layer in self.layers:
                if isinstance(layer, QuantSparseLinear):
                    layer.reset_weight_scale()
            if self.fit:
                fit_weight_scales(self.model)
            if any(layer.settings_.activation == "static" for layer in self.layers):
                calibrate(self.model.eval(), self.batches(), method=self.calibration)
        self.model.train(training)

    def _set(self, quantizing: bool) -> None:
        for layer in self.layers:
            layer.quantizing = quantizing


class Pruning(TrainerCallback):
    """Updates the masks by the schedule after each step.

    make: builds the pruner once the number of steps and the optimizer are known; there is none without training.
    """

    def __init__(self, make: Callable[[int, Optimizer | None], Pruner]) -> None:
        self.make = make
        self.sparsity = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.begin(state.max_steps, state.global_step, kwargs["optimizer"])

    def begin(self, steps: int, done: int = 0, optimizer: Optimizer | None = None) -> None:
        """Before the next step of a training of this many; with 0 steps, prunes at once."""
        self.pruner = self.make(steps, optimizer)
        if done == 0:
            self.sparsity = self.pruner.step(0)  # a resumed run has the masks of its checkpoint

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.sparsity = self.pruner.step(state.global_step)


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

    def __init__(self, phase: Phase, loss: Callable[[], float], pruning: Pruning | None) -> None:
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
