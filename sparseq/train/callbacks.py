"""What happens between optimizer steps: masks follow the schedule, quantization starts, progress is shown."""

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sparseq.nn import MaskedWeight, QuantSparseLinear, calibrate, named_layers, share_static_scales
from sparseq.prune import MagnitudePruner

from .data import SimilarLengths
from .precision import arithmetic
from .progress import Phase


class QuantizationStart(TrainerCallback):
    """Quantizes from step `start` on: turns layers on, sets learned scales from the weights, calibrates activations.

    calibration: `calibrate`'s method, which static ranges follow afterwards.

    All of it follows from the step and the weights, so that a resumed run does what the unbroken one did. A start past
    the last step leaves it to `finish`: post-training quantization.
    """

    def __init__(
        self,
        model: nn.Module,
        start: int,
        batches: Callable[[], Iterable[dict[str, Tensor]]],
        calibration: str = "max",
    ) -> None:
        self.model, self.start, self.batches, self.calibration = model, start, batches, calibration
        found = (layer for _, layer in named_layers(model) if isinstance(layer, MaskedWeight))
        self.layers = [layer for layer in found if layer.bits is not None]  # without bits it is only pruned

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.global_step == 0 and self.start == 0:
            self.begin()
        for layer in self.layers:
            if isinstance(layer, QuantSparseLinear):
                layer.range_follows = self.calibration  # is no part of a checkpoint
        self._set(state.global_step >= self.start)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step == self.start:
            self.begin()
        elif state.global_step > self.start:
            share_static_scales(self.model)

    def finish(self, steps: int) -> None:
        """After training of so many steps: quantizes if the training never came to it."""
        if steps < self.start:
            self.begin()
        self._set(True)

    def begin(self) -> None:
        """Sets every scale afresh from the weights and some batches as they are now, and starts quantizing."""
        self._set(True)
        for layer in self.layers:
            if isinstance(layer, QuantSparseLinear):
                layer.reset_weight_scale()
        if any(layer.settings_.activation == "static" for layer in self.layers):
            training, place = self.model.training, next(self.model.parameters()).device
            with arithmetic(place):  # as it is evaluated
                calibrate(self.model.eval(), self.batches(), method=self.calibration)
            self.model.train(training)

    def _set(self, quantizing: bool) -> None:
        for layer in self.layers:
            layer.quantizing = quantizing


class Pruning(TrainerCallback):
    """Brings the masks along the schedule after each step; `make` builds the pruner once the steps are counted."""

    def __init__(self, make: Callable[[int], MagnitudePruner]) -> None:
        self.make = make
        self.sparsity = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.pruner = self.make(state.max_steps)
        if state.global_step == 0:
            self.sparsity = self.pruner.step(0)  # a resumed run's masks came with its checkpoint

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.sparsity = self.pruner.step(state.global_step)


class RowOrder(TrainerCallback):
    """Tells the sampler its epoch.

    accelerate does so too, but under several processes it does not reach the sampler of a resumed epoch.
    """

    def __init__(self, sampler: Callable[[], SimilarLengths]) -> None:
        self.sampler = sampler

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.sampler().set_epoch(state.global_step // len(kwargs["train_dataloader"]))


class ShowProgress(TrainerCallback):
    """Step, loss (a running mean) and sparsity, in the phase's bar."""

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
