"""Mix-ins for any `transformers.Trainer`: the optimizer's groups of parameters, and distillation."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import Trainer

from sparseq.distill import hidden_state_loss, soft_loss
from sparseq.distill.batch import LABELS, LOGITS, students_inputs, teachers_inputs
from sparseq.errors import InputError
from sparseq.nn import parameter_groups
from sparseq.nn.groups import separate_scales

__all__ = ["Distillation", "DistillationMixin", "DistillationTrainer", "ParameterGroupsMixin"]

# What is compared of the outputs of a model with a head: classes of sequences or tokens, and of answers in a text.
_COMPARED = ("logits", "start_logits", "end_logits")


@dataclass
class Distillation:
    """What a student learns from a teacher, besides the labels (Hinton et al. 2015; see `distillation_loss`).

    teacher: any model with logits of the student's shape; None if each batch has `teacher_logits`. kind: "ce" or "mse",
    of the loss on the logits; None for no such loss. temperature: of "ce". alpha: the weight of the
    teacher's loss, the labels' loss has 1 - alpha.

    hidden_weight: the weight of the squared error between hidden states (TinyBERT, Jiao et al. 2020), in addition.
    layers: the numbers of the teacher's hidden states that are compared with those of the student's outputs, in their
    order. `sparseq.distill.HiddenStates` has a student give those, and `layer_map` pairs them.
    """

    teacher: nn.Module | None = None
    kind: str | None = "ce"
    temperature: float = 2.0
    alpha: float = 0.5
    hidden_weight: float = 0.0
    layers: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in ("ce", "mse", None):
            raise InputError(f"unknown kd loss {self.kind!r}: use ce or mse")
        for name, value, high in (("alpha", self.alpha, 1.0), ("hidden_weight", self.hidden_weight, float("inf"))):
            if not 0 <= value <= high:
                raise InputError(f"{name} is {value}: it must be from 0 to {high:g}")
        if not self.temperature > 0:
            raise InputError(f"temperature is {self.temperature}: it must be above 0")
        if self.hidden_weight and self.teacher is None:
            raise InputError("hidden states are compared with those of a teacher: give one")


class ParameterGroupsMixin:
    """Has a Trainer make its optimizer from `sparseq.parameter_groups`: learned scales are not decayed, and have a
    hundredth of the learning rate. `class MyTrainer(ParameterGroupsMixin, Trainer)`."""

    def create_optimizer(self: Any, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The optimizer over `parameter_groups`, with transformers' choice of decayed parameters; where the Trainer has
        groups of its own, over those, with the learned scales in others."""
        if (made := getattr(self, "optimizer", None)) is not None:
            return cast(torch.optim.Optimizer, made)
        own = self.model if model is None else model
        kind, options = self.get_optimizer_cls_and_kwargs(self.args, own)
        if isinstance(kind, type) and not _GROUPS & set(options):
            decayed = self.get_decay_parameter_names(own)
            groups = parameter_groups(own, options.pop("lr"), self.args.weight_decay, decayed=decayed)
            self.optimizer = kind(groups, **options)
        else:
            super().create_optimizer(*([] if model is None else [model]))  # type: ignore[misc]
            separate_scales(own, self.optimizer)
        return cast(torch.optim.Optimizer, self.optimizer)


class DistillationMixin(ParameterGroupsMixin):
    """Has a Trainer add a teacher's loss to the student's: `class MyTrainer(DistillationMixin, Trainer)`.

    It works for heads whose output has `logits` (of sequences, of tokens) or `start_logits` and `end_logits`. Of
    tokens, those count whose label is not -100. The labels' loss is the model's own.

    distillation: what is learned from the teacher; None trains on the labels alone. The teacher is moved to the
    trainer's device, in eval mode. It gets the student's inputs that its forward accepts, or those of the batch whose
    names begin with `teacher_input.`.
    """

    distillation: Distillation | None = None

    def compute_loss(
        self: Any,
        model: nn.Module,
        inputs: Mapping[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """alpha * the teacher's loss + (1 - alpha) * the labels', and the hidden states' loss; a scalar, fp32."""
        if self.distillation is None:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)  # type: ignore[misc]
        loss, outputs = self.distilled(model, inputs)
        return (loss, outputs) if return_outputs else loss

    def distilled(self: Any, model: nn.Module, inputs: Mapping[str, Any]) -> tuple[Tensor, Any]:
        """(the loss, the student's outputs)."""
        settings: Distillation = self.distillation
        # The loss is the mean over its batch: Trainer is to divide it by the batches that gradients accumulate over.
        self.model_accepts_loss_kwargs = False
        own = students_inputs(inputs)
        hidden = {"output_hidden_states": True} if settings.hidden_weight else {}
        outputs = self.student_outputs(model, own, hidden)
        taught = self._taught(inputs, own, hidden)
        loss = self.logits_loss(outputs, taught, inputs)
        if settings.hidden_weight:
            states = [taught["hidden_states"][i] for i in settings.layers]
            kept = own["attention_mask"]
            loss = loss + settings.hidden_weight * hidden_state_loss(outputs.hidden_states, states, kept)
        return loss, outputs

    def student_outputs(self: Any, model: nn.Module, own: dict[str, Any], options: dict[str, Any]) -> Any:
        """The outputs of the student for its inputs, with the labels' loss among them."""
        return model(**own, **options)

    def logits_loss(self: Any, outputs: Any, taught: Mapping[str, Any], inputs: Mapping[str, Any]) -> Tensor:
        """The loss of the student's outputs, without that of hidden states."""
        settings: Distillation = self.distillation
        if settings.kind is None or settings.alpha == 0:
            return _own_loss(outputs)
        soft = torch.stack(
            [
                soft_loss(*rows, kind=settings.kind, temperature=settings.temperature)
                for rows in _compared(outputs, taught, inputs.get("labels"))
            ]
        ).mean()
        return soft if settings.alpha == 1 else settings.alpha * soft + (1 - settings.alpha) * _own_loss(outputs)

    @torch.no_grad()
    def _taught(self: Any, inputs: Mapping[str, Any], own: dict[str, Any], hidden: dict[str, Any]) -> dict[str, Any]:
        """The teacher's outputs, as far as they are compared."""
        settings: Distillation = self.distillation
        found = {"logits": inputs[LOGITS]} if LOGITS in inputs else {}
        if settings.teacher is None or (found and not hidden):
            if settings.kind is not None and not found:
                raise InputError(f"there is no teacher, and the batch has no {LOGITS}: give Distillation(teacher=...)")
            return found
        teacher = settings.teacher
        if teacher.training or next(teacher.parameters()).device != self.args.device:
            teacher.to(self.args.device).eval()
        theirs = teachers_inputs(inputs)
        if not theirs:
            accepted = inspect.signature(teacher.forward).parameters
            theirs = {name: value for name, value in own.items() if name in accepted and name not in LABELS}
        outputs = teacher(**theirs, **hidden)
        return {**{name: value for name, value in outputs.items() if value is not None}, **found}


class DistillationTrainer(DistillationMixin, Trainer):
    """`transformers.Trainer` with a teacher: `DistillationTrainer(model, args, distillation=Distillation(teacher))`.

    The other arguments are Trainer's. See `DistillationMixin`.
    """

    def __init__(self, *args: Any, distillation: Distillation | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.distillation = distillation


# What `get_optimizer_cls_and_kwargs` calls groups of its own.
_GROUPS = {"params", "model", "optimizer_dict"}


def _own_loss(outputs: Any) -> Tensor:
    loss = getattr(outputs, "loss", None)
    if loss is None:
        raise InputError("the batch has no labels to learn from beside the teacher: give some, or alpha=1")
    return loss.float()


def _compared(outputs: Any, taught: Mapping[str, Any], labels: Tensor | None) -> list[tuple[Tensor, Tensor]]:
    """The pairs of logits, [rows, classes] each. Raises InputError if there are none."""
    names = [name for name in _COMPARED if getattr(outputs, name, None) is not None and name in taught]
    if not names:
        raise InputError(f"the models' outputs have none of {', '.join(_COMPARED)} in common: nothing can be distilled")
    return [_rows(getattr(outputs, name), taught[name], labels) for name in names]


def _rows(student: Tensor, teacher: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
    """Both logits as [rows, classes]; of tokens [N, L, C] those whose label is not -100."""
    if student.dim() != 3 or student.shape != teacher.shape:
        return student, teacher
    kept = torch.ones(student.shape[:2], dtype=torch.bool, device=student.device) if labels is None else labels != -100
    return student[kept], teacher[kept]
