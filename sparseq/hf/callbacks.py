"""Callbacks for any `transformers.Trainer`: quantization and pruning between optimizer steps."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sparseq.distill.batch import LABELS
from sparseq.errors import InputError
from sparseq.nn import (
    MaskedWeight,
    QuantSparseLinear,
    calibrate,
    fit_weight_scales,
    named_layers,
    share_static_scales,
    smooth,
)
from sparseq.nn.groups import check_scale_groups
from sparseq.nn.sharded import is_sharded
from sparseq.prune import Pruner, PruningSettings, gradual_pruner

__all__ = ["PruningCallback", "QATCallback"]

CALIBRATION_BATCHES = 8
"""How many training batches static ranges are found from, if none are given."""

Batches = Callable[[], Iterable[dict[str, Tensor]]] | Iterable[dict[str, Tensor]]


class QATCallback(TrainerCallback):
    """Starts quantization of a converted model at a step, and keeps its scales.

    start: the step at which quantization begins: a number of steps, a share of training (a float below 1), or None
    after the last step, which is post-training quantization. Before it layers compute in floating point.

    When it begins, learned weight scales are set from the weights (`fit`: weight scales are fitted by
    `fit_weight_scales`; smooth_alpha: after `smooth`), and static activation scales are calibrated by the method
    `calibration` (see `sparseq.calibrate`) from `batches`, an iterable of the model's inputs or a function that returns
    one; by default the first 8 batches of the training data. Afterwards static scales are made equal in all processes
    at each step.

    All of this depends only on the step and the weights, so a run that is resumed from a checkpoint does the same as
    one that was not interrupted. model: of the trainer by default. at_end: whether a training that has not reached the
    start quantizes when it ends; otherwise `finish` does.

    Raises InputError before the first step for a model that is not converted, for learned scales that the optimizer
    would decay (see `ParameterGroupsMixin`), and for those that FSDP has sharded.
    """

    def __init__(
        self,
        start: int | float | None = 0,
        *,
        calibration: str = "average",
        batches: Batches | None = None,
        fit: bool = False,
        smooth_alpha: float | None = None,
        model: nn.Module | None = None,
        at_end: bool = True,
    ) -> None:
        if start is not None and start < 0:
            raise InputError(f"quantization starts at step {start}: give 0 or more, or None for after the last step")
        self.start, self.calibration, self.fit, self.smooth_alpha = start, calibration, fit, smooth_alpha
        self.batches, self.at_end = batches, at_end
        self.training_rows: Batches | None = None
        self.own_model = model
        self.first: float | None = None  # the step; None before training
        if model is not None:
            self._take(model)

    def _take(self, model: nn.Module) -> None:
        self.model = model
        found = (layer for _, layer in named_layers(model) if isinstance(layer, MaskedWeight))
        self.layers = [layer for layer in found if layer.bits is not None]  # without bits, only pruning

    def _first(self, steps: int) -> float:
        if self.start is None:
            return math.inf
        return round(self.start * steps) if isinstance(self.start, float) and self.start < 1 else self.start

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._take(kwargs["model"] if self.own_model is None else self.own_model)
        if not self.layers:
            raise InputError("the model has no layers to quantize: call sparseq.convert(model) before training")
        if (optimizer := kwargs.get("optimizer")) is not None:
            check_scale_groups(self.model, optimizer)
        if any(is_sharded(layer.weight) and getattr(layer, "step_size", None) is not None for layer in self.layers):
            raise InputError("learned scales cannot be set once FSDP has sharded them: use DDP, or scale='max'")
        if (loader := kwargs.get("train_dataloader")) is not None:
            self.training_rows = lambda: _first_batches(loader, args.train_batch_size, args.device)
        self.first = self._first(state.max_steps)
        if state.global_step == 0 and self.first == 0:
            self.begin()
        for layer in self.layers:
            if isinstance(layer, QuantSparseLinear):
                layer.range_follows = self.calibration  # is not part of a checkpoint
        self._set(state.global_step >= self.first)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        assert self.first is not None
        if state.global_step == self.first:
            self.begin()
        elif state.global_step > self.first:
            share_static_scales(self.model)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.at_end:
            self.finish(state.global_step)

    def finish(self, steps: int) -> None:
        """After a training of this many steps: quantizes if the training did not reach the start."""
        if steps < (self._first(steps) if self.first is None else self.first):
            self.begin()
        self._set(True)

    def begin(self) -> None:
        """Sets every scale anew from the current weights and some batches, and starts quantizing."""
        place = next(self.model.parameters()).device.type
        with torch.autocast(place, enabled=False):  # as it is evaluated
            self._begin()

    def _begin(self) -> None:
        training = self.model.training
        if self.smooth_alpha is not None:
            smooth(self.model.eval(), self._inputs(), self.smooth_alpha)
        self._set(True)
        for layer in self.layers:
            if isinstance(layer, QuantSparseLinear):
                layer.reset_weight_scale()
        if self.fit:
            fit_weight_scales(self.model)
        if any(layer.settings_.activation == "static" for layer in self.layers):
            calibrate(self.model.eval(), self._inputs(), method=self.calibration)
        self.model.train(training)

    def _inputs(self) -> Iterable[dict[str, Tensor]]:
        batches = self.training_rows if self.batches is None else self.batches
        if batches is None:
            raise InputError("there are no batches to find static ranges from: give QATCallback(batches=...)")
        return batches() if callable(batches) else batches

    def _set(self, quantizing: bool) -> None:
        for layer in self.layers:
            layer.quantizing = quantizing


class PruningCallback(TrainerCallback):
    """Updates the masks of a converted model after each optimizer step, as the sparsity rises.

    settings: what is removed and when; or its fields as keywords, as in `PruningCallback(sparsity=0.6, pattern="4x4")`.
    `sparsity` is the target at the last step taken. The masks are in the model's state, so a resumed run has those of
    its checkpoint.

    Raises InputError before the first step for a pattern that does not fit a layer, naming it, and for weights that
    FSDP has sharded.
    """

    def __init__(
        self, settings: PruningSettings | None = None, *, model: nn.Module | None = None, **fields: Any
    ) -> None:
        self.settings = PruningSettings(**fields) if settings is None else settings
        if settings is not None and fields:
            raise InputError("give PruningCallback either settings or their fields as keywords, not both")
        self.model = self.own_model = model
        self.sparsity = 0.0
        self.pruner: Pruner | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.model = kwargs["model"] if self.own_model is None else self.own_model
        self.begin(state.max_steps, state.global_step, kwargs["optimizer"])

    def begin(self, steps: int, done: int = 0, optimizer: Optimizer | None = None) -> None:
        """Before the next step of a training of this many; with 0 steps, prunes at once."""
        assert self.model is not None
        self.pruner = gradual_pruner(self.model, self.settings, steps, optimizer)
        if done == 0:
            self.sparsity = self.pruner.step(0)  # a resumed run has the masks of its checkpoint

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        assert self.pruner is not None
        self.sparsity = self.pruner.step(state.global_step)


def _first_batches(loader: Any, batch_size: int, device: torch.device) -> Iterable[dict[str, Tensor]]:
    """The first training rows in their order, as batches without labels. The trainer's own loader is left alone: to
    iterate it would change the order of rows in training."""
    rows = DataLoader(loader.dataset, batch_size, collate_fn=loader.collate_fn)
    for batch in itertools.islice(rows, CALIBRATION_BATCHES):
        yield {
            name: value.to(device) for name, value in batch.items() if isinstance(value, Tensor) and name not in LABELS
        }
