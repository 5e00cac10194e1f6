"""`CompressTrainer`: transformers' Trainer with our losses, order of rows, and checkpoints that resume exactly."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from transformers import TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from sparseq.checkpoint import WEIGHTS, contents
from sparseq.distill import distillation_loss, label_loss
from sparseq.distill.batch import ALPHA, students_inputs
from sparseq.errors import InputError, MachineError
from sparseq.failures import is_out_of_memory, writing
from sparseq.hf.distillation import Distillation, DistillationTrainer
from sparseq.nn import find_nonfinite
from sparseq.nn.finite import checked_tensors, is_finite
from sparseq.reading import brief

from . import distributed, hardware
from .best import save_weights
from .data import SimilarLengths
from .folder import Marker, RunFolder
from .following import Following
from .precision import arithmetic
from .recipe import Recipe
from .trackers import check_trackers


class CompressTrainer(DistillationTrainer):
    """A `DistillationTrainer` with another order of rows, and other checkpoints.

    distillation: kind=None trains on the labels alone. regression: whether the labels are numbers. class_weights: of
    the loss on labels, in the order of the classes.

    A checkpoint counts once its marker exists (see `folder`), and the order of rows depends only on seed and epoch (see
    `SimilarLengths`). So a resumed run takes exactly the steps of an uninterrupted one.
    """

    distillation: Distillation

    def __init__(
        self,
        *args: Any,
        distillation: Distillation,
        regression: bool,
        class_weights: tuple[float, ...] | None,
        precision: str,
        lengths: list[int],
        folder: RunFolder,
        following: Following,
        seconds_before: float,
        conditions: dict[str, str],
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, distillation=distillation, **kwargs)
        self.remove_callback(PrinterCallback)
        self.remove_callback(ProgressCallback)
        self.regression, self.precision, self.lengths, self.folder = regression, precision, lengths, folder
        self.conditions, self.following = conditions, following
        self.class_weights = None if class_weights is None else torch.tensor(class_weights, device=self.args.device)
        self.last_loss = float("nan")
        self.started = time.monotonic() - seconds_before

    @property
    def seconds(self) -> float:
        """Wall time of the run so far, including earlier processes up to the checkpoint resumed from."""
        return time.monotonic() - self.started

    def compute_loss(
        self, model: nn.Module, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The sum of the losses on one batch. Raises InputError, naming the layer, if it is not finite."""
        with arithmetic(self.args.device, self.precision):
            loss, outputs = self.distilled(model, inputs)
            self.last_loss = loss.item()
            if not torch.isfinite(loss):
                self._say_where(_without_labels(students_inputs(inputs)))
        return (loss, outputs) if return_outputs else loss

    def student_outputs(self, model: nn.Module, own: dict[str, Any], options: dict[str, Any]) -> Any:
        return model(**_without_labels(own), **options)

    def logits_loss(self, outputs: Any, taught: Mapping[str, Any], inputs: Mapping[str, Any]) -> Tensor:
        """The loss on the labels, and on the teacher's logits if each batch has them."""
        settings = self.distillation
        if settings.kind is None:
            return label_loss(
                outputs.logits, inputs["labels"], regression=self.regression, class_weights=self.class_weights
            )
        return distillation_loss(
            outputs.logits,
            taught["logits"],
            inputs["labels"],
            kind=settings.kind,
            temperature=settings.temperature,
            alpha=inputs.get(ALPHA, settings.alpha),
            regression=self.regression,
            class_weights=self.class_weights,
        )

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

    def _get_train_sampler(self, train_dataset: Any = None) -> SimilarLengths:
        # the rows of all processes' batches at one step are adjacent here, and so have similar lengths
        self.sampler = SimilarLengths(
            self.lengths, self.args.train_batch_size * distributed.world_size(), self.args.seed
        )
        return self.sampler

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        if self.args.should_save and output_dir is not None:
            save_weights(self.model, Path(output_dir))
            self.following.save(Path(output_dir))

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


def _without_labels(inputs: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in inputs.items() if name != "labels"}


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
    check_trackers(recipe.report_to)
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
        report_to="none",  # see `reports`
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
