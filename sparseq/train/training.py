"""Training: sets up the trainer for a recipe, resumes it if possible, and runs it to its last step."""

import gc
import time
from pathlib import Path

import transformers
from datasets import Dataset

from sparseq.errors import InputError
from sparseq.hf.callbacks import PruningCallback, QATCallback
from sparseq.hf.distillation import Distillation
from sparseq.nn import check_finite

from . import advice, conditions, distributed
from .calibrating import calibration_batches
from .callbacks import RowOrder, ShowProgress
from .collate import Collate
from .data import lengths
from .folder import Marker, RunFolder
from .following import Following
from .prepare import Prepared, kd_loss
from .progress import Reporter
from .recipe import Recipe
from .trainer import CompressTrainer


def train(
    recipe: Recipe,
    prepared: Prepared,
    folder: RunFolder,
    arguments: transformers.TrainingArguments,
    rows: Dataset,
    following: Following,
    began: float,
    reporter: Reporter,
) -> CompressTrainer:
    """Trains to the last step, from the last checkpoint if there is one; the trainer has the trained student."""
    student, task = prepared.student, prepared.task
    learned = Distillation(kind=None)  # the labels alone
    if prepared.teacher is not None:
        learned = Distillation(kind=kd_loss(recipe, task), temperature=recipe.temperature, alpha=recipe.kd_alpha)
    if prepared.hidden is not None and prepared.teacher is not None:
        learned.teacher, learned.layers = prepared.teacher.to(arguments.device).eval(), prepared.teacher_layers
        learned.hidden_weight = recipe.hidden_loss
    else:
        prepared.teacher = None  # only its logits are used
        gc.collect()
    here = conditions.current(prepared.precision, ops=recipe.quantizes or recipe.uses("mp"))
    last = distributed.in_first(lambda: _last_checkpoint(folder))
    if last is not None:
        reporter.say(f"going on from step {last[1].step} of {last[1].max_steps}")
        if changed := last[1].changed(here):
            reporter.say(
                f"begun under other conditions ({'; '.join(changed)}): rounding differs, and the result can differ "
                "from that of an uninterrupted run"
            )
    # Includes the time of earlier processes, and of this one so far.
    before = (last[1].seconds if last else 0.0) + time.monotonic() - began
    collate = Collate(prepared.tokenizer, prepared.teacher_tokenizer if prepared.hidden is not None else None)
    quantization = QATCallback(
        None if recipe.uses("ptq") else recipe.qat_start,
        calibration=recipe.calibration,
        batches=lambda: calibration_batches(recipe, rows, prepared),
        fit=recipe.scale == "mse",
        smooth_alpha=recipe.smooth,
        model=student,
        at_end=False,
    )
    arguments.learning_rate = advice.peak_rate(recipe, student)
    pruning = PruningCallback(recipe.pruning, model=student) if recipe.uses("mp") else None
    trainer = CompressTrainer(
        student, arguments, data_collator=collate, train_dataset=rows,
        distillation=learned, regression=task.is_regression, class_weights=prepared.class_weights,
        precision=prepared.precision, lengths=lengths(rows),
        folder=folder, following=following, seconds_before=before, conditions=here,
    )  # fmt: skip
    trainer.add_callback(RowOrder(lambda: trainer.sampler))
    if pruning is not None:
        trainer.add_callback(pruning)
    if recipe.quantizes:
        trainer.add_callback(quantization)  # after pruning, because scales are set from the masked weights
    following.pruning, following.loss = pruning, lambda: trainer.last_loss
    trainer.add_callback(following)  # sees the model that pruning and quantization have made
    if recipe.epochs:
        following.checkpoint = last[0] if last else None
        _run(trainer, last, pruning, reporter)
        if distributed.rank() == 0 and (best := following.chosen(trainer.state.global_step)) is not None:
            trainer._load_from_checkpoint(str(following.best.checked(best.step)))
    else:
        distributed.in_first(following.reports.begin)
        if pruning is not None:
            pruning.begin(0)
    if recipe.uses("ptq"):
        with reporter.phase("quantizing"):
            quantization.finish(trainer.state.global_step)
    else:
        quantization.finish(trainer.state.global_step)
    check_finite(student)
    if prepared.hidden is not None:
        prepared.hidden.detach(student)
    return trainer


def _run(
    trainer: CompressTrainer, last: tuple[Path, Marker] | None, pruning: PruningCallback | None, reporter: Reporter
) -> None:
    """Trains to the last step, from the checkpoint `last` if there is one."""
    with reporter.phase("training") as phase:
        trainer.add_callback(ShowProgress(phase, lambda: trainer.last_loss, pruning))
        if last is not None and last[1].step >= last[1].max_steps:
            trainer._load_from_checkpoint(str(last[0]))
            trainer.state.global_step = last[1].step
            trainer.following.resume(last[1].max_steps)
            phase.total = last[1].max_steps
            phase.update(last[1].step, "complete before")
        else:
            trainer.train(resume_from_checkpoint=str(last[0]) if last else None)


def _last_checkpoint(folder: RunFolder) -> tuple[Path, Marker] | None:
    """The checkpoint that the run continues from, if any.

    Raises InputError unless the number of processes is the same as at the start.
    """
    last = folder.last_checkpoint()
    if last is not None and last[1].world_size != distributed.world_size():
        raise InputError(
            f"the run in {folder.path} was begun by {last[1].world_size} process(es) and cannot continue with "
            f"{distributed.world_size()}: start as many"
        )
    return last
