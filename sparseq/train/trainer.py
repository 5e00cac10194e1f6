"""`CompressTrainer`: transformers' Trainer with our losses, order of rows, and checkpoints that resume exactly."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from transformers import Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from sparseq.checkpoint import WEIGHTS, contents
from sparseq.distill import distillation_loss, hidden_state_loss, label_loss
from sparseq.errors import InputError, MachineError
from sparseq.failures import is_out_of_memory, writing
from sparseq.nn import find_nonfinite, parameter_groups
from sparseq.nn.finite import checked_tensors, is_finite
from sparseq.reading import brief

from . import distributed, hardware
from .collate import TEACHERS, teachers_inputs
from .data import SimilarLengths
from .folder import Marker, RunFolder
from .precision import arithmetic
from .recipe import Recipe

# The column with the weight of the teacher's loss, if each row has its own.
ALPHA = "kd_alpha"


@dataclass
class Losses:
    """The losses of a training step.

    kind: of the loss on the teacher's logits, 'ce' or 'mse'; None trains on the labels alone. teacher: the live teacher
    of the hidden-state loss; its hidden states numbered `teacher_layers` are compared.
    """

    regression: bool
    kind: str | None = None
    temperature: float = 1.0
    alpha: float = 0.0
    teacher: nn.Module | None = None
    teacher_layers: tuple[int, ...] = ()
    hidden_weight: float = 0.0


class CompressTrainer(Trainer):
    """A Trainer with other losses, another order of rows, and other checkpoints.

    A checkpoint counts once its marker exists (see `folder`), and the order of rows depends only on seed and epoch (see
    `SimilarLengths`). So a resumed run takes exactly the steps of an uninterrupted one.
    """

    loss_is_scaled_for_ga = False  # `compute_loss` returns the mean over its batch

    def __init__(
        self,
        *args: Any,
        losses: Losses,
        precision: str,
        lengths: list[int],
        folder: RunFolder,
        seconds_before: float,
        conditions: dict[str, str],
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.remove_callback(PrinterCallback)
        self.remove_callback(ProgressCallback)
        self.losses, self.precision, self.lengths, self.folder = losses, precision, lengths, folder
        self.conditions = conditions
        self.last_loss = float("nan")
        self.started = time.monotonic() - seconds_before

    @property
    def seconds(self) -> float:
        """Wall time of the run so far, including earlier processes up to the checkpoint resumed from."""
        return time.monotonic() - self.started

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The sum of the losses on one batch. Raises InputError, naming the layer, if it is not finite."""
        with arithmetic(self.args.device, self.precision):
            loss, outputs = self._loss(model, inputs)
        return (loss, outputs) if return_outputs else loss

    def _loss(self, model: nn.Module, inputs: dict[str, Tensor]) -> tuple[Tensor, Any]:
        losses = self.losses
        others = ("labels", "teacher_logits", ALPHA)
        batch = {name: value for name, value in inputs.items() if name not in others and not name.startswith(TEACHERS)}
        hidden = {"output_hidden_states": True} if losses.teacher is not None else {}
        outputs = model(**batch, **hidden)
        if losses.kind is None:
            loss = label_loss(outputs.logits, inputs["labels"], regression=losses.regression)
        else:
            loss = distillation_loss(
                outputs.logits,
                inputs["teacher_logits"],
                inputs["labels"],
                kind=losses.kind,
                temperature=losses.temperature,
                alpha=inputs.get(ALPHA, losses.alpha),
                regression=losses.regression,
            )
        if losses.teacher is not None:
            with torch.no_grad():
                states = losses.teacher(**teachers_inputs(inputs), output_hidden_states=True).hidden_states
            taught = [states[i] for i in losses.teacher_layers]
            loss = loss + losses.hidden_weight * hidden_state_loss(
                outputs.hidden_states, taught, batch["attention_mask"]
            )
        self.last_loss = loss.item()
        if not torch.isfinite(loss):
            self._say_where(batch)
        return loss, outputs

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """The loss of the step; its gradient is added to those of the parameters.

        Raises InputError, naming the layer, if the gradient is not finite; clipping by the norm would make every weight
        non-finite.
        """
        loss = super().training_step(*args, **kwargs)
        gradients = {name: p.grad for name, p in self.model.named_parameters() if p.grad is not None}
        if not torch.isfinite(get_total_norm(gradients.values())):  # or the norm of a finite gradient overflows
            wrong = [name for name, gradient in gradients.items() if not torch.isfinite(gradient).all()]
            if wrong:  # it spreads from a layer to earlier ones
                self._refuse(f"the gradient of {wrong[-1]!r} at step {self.state.global_step + 1} is not finite")
        return loss

    def _refuse(self, what: str, way_out: str = "train with a lower --lr, or with --precision fp32") -> NoReturn:
        last = self.folder.last_checkpoint()
        kept = f"; the checkpoint of step {last[1].step} stays, and the same command continues from it" if last else ""
        raise InputError(f"{what}: {way_out}, into another --out{kept}")

    def _say_where(self, batch: dict[str, Tensor]) -> None:
        where = find_nonfinite(self.model, batch)
        step = f"the loss at step {self.state.global_step + 1} is not a finite number"
        if where:
            self._refuse(f"{step} (layer {where} is the first to give none)")
        self._refuse(
            f"{step}, though every layer's output is: it is too large",
            "train with smaller numbers to predict, or a lower --temperature or --hidden-loss",
        )

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The optimizer over `parameter_groups`, with transformers' choice of decayed parameters."""
        model = self.model if model is None else model
        optimizer: torch.optim.Optimizer | None = getattr(self, "optimizer", None)
        if optimizer is None:
            kind, options = self.get_optimizer_cls_and_kwargs(self.args, model)
            decayed = self.get_decay_parameter_names(model)
            groups = parameter_groups(model, options.pop("lr"), self.args.weight_decay, decayed=decayed)
            self.optimizer = optimizer = kind(groups, **options)
        assert optimizer is not None
        return optimizer

    def _get_train_sampler(self, train_dataset: Any = None) -> SimilarLengths:
        # the rows of all processes' batches at one step are adjacent here, and so have similar lengths
        self.sampler = SimilarLengths(
            self.lengths, self.args.train_batch_size * distributed.world_size(), self.args.seed
        )
        return self.sampler

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        if self.args.should_save and output_dir is not None:
            Path(output_dir).mkdir(parents=True, exist_ok=True)
            tensors = contents(self.model).tensors
            save_file(
                {name: tensor.cpu().contiguous().clone() for name, tensor in tensors.items()},
                Path(output_dir) / WEIGHTS,
            )

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        with _readable(resume_from_checkpoint):
            model = self.model if model is None else model
            state = load_file(Path(resume_from_checkpoint) / WEIGHTS)
            for name, first in contents(model).aliases.items():
                state[name] = state[first]
            model.load_state_dict(state)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with _readable(checkpoint):
            super()._load_optimizer_and_scheduler(checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        with _readable(checkpoint):
            super()._load_rng_state(checkpoint)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        step = self.state.global_step
        checkpoint = Path(self.args.output_dir) / f"checkpoint-{step}"
        self._check_state()
        try:
            with writing(checkpoint):
                if self.args.should_save:
                    self.folder.make_room(checkpoint)
                super()._save_checkpoint(model, trial)
            distributed.barrier()  # every process has written its random state
            if self.args.should_save:
                threads = torch.get_num_threads()
                marker = Marker(
                    step, self.state.max_steps, self.seconds, distributed.world_size(), threads, self.conditions
                )
                self.folder.complete(checkpoint, marker)
        except MachineError:
            self.folder.discard(checkpoint)  # on a full disk nothing else could be written
            raise

    def _check_state(self) -> None:
        """Raises InputError if a weight, a scale or a moment of the optimizer is not finite.

        No run could continue from such a state. It is the same in every process.
        """
        names = {parameter: name for name, parameter in self.model.named_parameters()}
        moments = (
            (f"{name} of {names.get(parameter, 'a parameter')}", value)
            for parameter, state in self.optimizer.state.items()
            for name, value in state.items()
            if isinstance(value, Tensor)
        )
        for name, tensor in chain(checked_tensors(self.model), moments):
            if not is_finite(tensor):
                self._refuse(f"after step {self.state.global_step}, {name} holds NaN or Inf")


@contextmanager
def _readable(checkpoint: str | None) -> Iterator[None]:
    """Raises InputError if an unchanged checkpoint does not match the code that loads it."""
    try:
        yield
    except Exception as error:  # errors of pickle, torch and safetensors have no common base class
        if is_out_of_memory(error):
            raise
        raise InputError(
            f"the checkpoint {checkpoint} does not fit this version of sparseq, torch or transformers "
            f"({brief(error)}): continue with the version that wrote it, or remove that folder"
        ) from error


def training_arguments(recipe: Recipe, folder: RunFolder) -> TrainingArguments:
    """The recipe as transformers' TrainingArguments. Raises InputError for a batch that processes cannot share."""
    processes = distributed.world_size()
    if recipe.batch_size % processes:
        raise InputError(
            f"--batch-size {recipe.batch_size} cannot be shared evenly by {processes} processes: "
            f"give a multiple of {processes}"
        )
    arguments = TrainingArguments(
        output_dir=str(folder.checkpoints),
        seed=recipe.seed,
        data_seed=recipe.seed,
        num_train_epochs=recipe.epochs,
        per_device_train_batch_size=recipe.batch_size // processes,
        warmup_steps=recipe.lr_warmup,
        weight_decay=recipe.weight_decay,
        use_cpu=hardware.device().type == "cpu",
        save_strategy="steps",
        save_steps=recipe.save_steps,
        logging_strategy="no",
        eval_strategy="no",
        report_to="none",
        log_level="error",
        log_level_replica="error",
        logging_nan_inf_filter=False,
        remove_unused_columns=False,
        # every process selects the same masks from the same weights
        ddp_broadcast_buffers=False,
        disable_tqdm=True,
    )
    # accelerate would leave the model's forward wrapped in autocast permanently; `CompressTrainer` has its own.
    arguments.mixed_precision = "no"
    arguments._n_gpu = min(arguments._n_gpu, 1)  # several GPUs are used through torchrun, never through DataParallel
    return arguments
