"""`compress`: a recipe in, a folder with the compressed model and its measured numbers out."""

import gc
import platform
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import datasets
import safetensors
import torch
import transformers
from datasets import Dataset
from torch import Tensor, nn
from transformers import DataCollatorWithPadding

import sparseq
from sparseq import checkpoint
from sparseq.errors import InputError
from sparseq.failures import memory_kept, writing
from sparseq.nn import check_finite, pack, prunable
from sparseq.prune import layer_sparsities, total_sparsity
from sparseq.size import size_report
from sparseq.tasks import score

from . import advice, interrupt, machine
from .callbacks import Pruning, QuantizationStart, RowOrder, ShowProgress
from .collate import Collate, input_columns
from .console import Reporter
from .data import SimilarLengths, lengths
from .finished import finished_before
from .folder import RunFolder
from .plan import plan
from .prepare import (
    Prepared,
    kd_loss,
    prepare,
    pruner,
    training_rows,
)
from .processes import start_processes
from .recipe import Recipe
from .result import RunResult
from .scoring import evaluate_model
from .trainer import CompressTrainer, Losses, training_arguments

CALIBRATION_BATCHES = 8
LESS_MEMORY = (
    "give a smaller --batch-size, --eval-batch-size or --max-length (another --batch-size or --max-length is another "
    "run, into another --out), or free some; the same command goes on from its last checkpoint"
)


@interrupt.interruptible()
def compress(recipe: Recipe, *, reporter: Reporter | None = None) -> RunResult:
    """Runs a recipe to its end and returns what it came to; broken off, the same call goes on from its last checkpoint.

    The folder `recipe.out` then holds `model.safetensors`, `config.json`, the tokenizer, `recipe.toml` and
    `metrics.json`. A run that has finished there before is not run again. One run at a time has the folder. Under
    torchrun every process calls this.

    Raises InputError for a recipe, data or models that cannot run, before anything is written; for a folder that holds
    another run, or the same with other data or models, or that another process is running in; and for a loss, gradient
    or weights that are not finite, naming the layer. Raises MachineError where the disk is full or memory runs out: the
    same call goes on afterwards.
    """
    began = time.monotonic()
    recipe = recipe.validate().resolved()
    assert recipe.out is not None  # validated
    start_processes()
    reporter = reporter or Reporter(silent=machine.rank() > 0)
    machine.quiet_libraries()
    folder = RunFolder(recipe.out)
    if machine.in_first(lambda: folder.check(recipe)):
        return machine.in_first(lambda: finished_before(recipe, folder, reporter))
    with ExitStack() as held, memory_kept(LESS_MEMORY):
        machine.in_first(lambda: held.enter_context(folder.locked(reporter.say)))
        if machine.in_first(lambda: folder.check(recipe)):  # by a run that ended just before this one had the lock
            return machine.in_first(lambda: finished_before(recipe, folder, reporter))
        with reporter.phase("loading models and data"):
            arguments = training_arguments(recipe, folder)
            prepared = prepare(recipe)
        _, tokenised = plan(recipe, prepared, reporter)
        for damage in machine.in_first(lambda: folder.begin(recipe, prepared.fingerprint)):
            reporter.say(damage)
        try:
            rows, splits = training_rows(recipe, prepared, tokenised, reporter), tokenised.splits
            trainer = _train(recipe, prepared, folder, arguments, rows, began, reporter)
            machine.in_first(lambda: _finish(recipe, prepared, folder, trainer, rows, splits, reporter))
        except InputError:
            if machine.rank() == 0:
                folder.abandon()
            raise
    return RunResult.from_folder(folder.path)


def _train(
    recipe: Recipe,
    prepared: Prepared,
    folder: RunFolder,
    arguments: transformers.TrainingArguments,
    rows: Dataset,
    began: float,
    reporter: Reporter,
) -> CompressTrainer:
    """Trains to the last step, from the last checkpoint where there is one; the trainer holds the trained student."""
    student, task = prepared.student, prepared.task
    losses = Losses(task.is_regression)
    if prepared.teacher is not None:
        losses = replace(losses, kind=kd_loss(recipe, task), temperature=recipe.temperature, alpha=recipe.kd_alpha)
    if prepared.hidden is not None and prepared.teacher is not None:
        losses.teacher, losses.teacher_layers = prepared.teacher.to(arguments.device).eval(), prepared.teacher_layers
        losses.hidden_weight = recipe.hidden_loss
    else:
        prepared.teacher = None  # its logits are all that is left of it
        gc.collect()
    last = folder.last_checkpoint()
    if last is not None and last[1].world_size != machine.world_size():
        raise InputError(
            f"the run in {folder.path} was begun by {last[1].world_size} process(es) and cannot go on with "
            f"{machine.world_size()}: start as many"
        )
    if last is not None:
        reporter.say(f"going on from step {last[1].step} of {last[1].max_steps}")
        if last[1].threads != (threads := torch.get_num_threads()):
            reporter.say(
                f"begun with {last[1].threads} thread(s) and going on with {threads}: sums are rounded otherwise, and "
                "the result can differ from that of an unbroken run"
            )
    # What earlier processes spent counts; so does what this one has spent so far.
    before = (last[1].seconds if last else 0.0) + time.monotonic() - began
    collate = Collate(prepared.tokenizer, prepared.teacher_tokenizer if prepared.hidden is not None else None)
    quantization = QuantizationStart(
        student,
        recipe.qat_start,
        lambda: _calibration_batches(recipe, rows, prepared.tokenizer, student),
        recipe.calibration,
    )
    arguments.learning_rate = advice.peak_rate(recipe, student)
    pruning = Pruning(lambda steps: pruner(recipe, student, steps)) if recipe.uses("mp") else None
    trainer = CompressTrainer(
        student, arguments, data_collator=collate, train_dataset=rows,
        losses=losses, precision=prepared.precision, lengths=lengths(rows), folder=folder, seconds_before=before,
    )  # fmt: skip
    trainer.add_callback(RowOrder(lambda: trainer.sampler))
    if pruning is not None:
        trainer.add_callback(pruning)
    trainer.add_callback(quantization)  # after pruning: scales are set from the masked weights
    with reporter.phase("training") as phase:
        trainer.add_callback(ShowProgress(phase, lambda: trainer.last_loss, pruning))
        if last is not None and last[1].step >= last[1].max_steps:
            trainer._load_from_checkpoint(str(last[0]))
            trainer.state.global_step = last[1].step
            phase.total = last[1].max_steps
            phase.update(last[1].step, "complete before")
        else:
            trainer.train(resume_from_checkpoint=str(last[0]) if last else None)
    quantization.finish(trainer.state.global_step)
    check_finite(student)
    if prepared.hidden is not None:
        prepared.hidden.detach(student)
    return trainer


def _calibration_batches(
    recipe: Recipe, rows: Dataset, tokenizer: Any, student: nn.Module
) -> Iterator[dict[str, Tensor]]:
    """A few training batches, the same whenever and wherever they are asked for."""
    order = list(SimilarLengths(lengths(rows), recipe.batch_size, recipe.seed))
    place = next(student.parameters()).device
    collate = DataCollatorWithPadding(tokenizer)
    inputs = rows.select_columns(input_columns(rows, student))
    for start in range(0, min(len(order), CALIBRATION_BATCHES * recipe.batch_size), recipe.batch_size):
        yield dict(collate([inputs[row] for row in order[start : start + recipe.batch_size]]).to(place))


def _finish(
    recipe: Recipe,
    prepared: Prepared,
    folder: RunFolder,
    trainer: CompressTrainer,
    rows: Dataset,
    splits: dict[str, Dataset],
    reporter: Reporter,
) -> None:
    """Scores, packs, saves, loads back and scores again, then writes `metrics.json`: with it the run is finished."""
    student, task, tokenizer = prepared.student, prepared.task, prepared.tokenizer
    options: dict[str, Any] = {"batch_size": recipe.eval_batch_size, "reporter": reporter}
    before = score(task, evaluate_model(student, task, splits, tokenizer, name="evaluating before packing", **options))
    pruned = prunable(student, embeddings=recipe.prune_embeddings) if recipe.uses("mp") else {}
    reached, nearly_removed = total_sparsity(pruned), advice.nearly_removed(layer_sparsities(pruned))
    with reporter.phase("packing and saving") as phase:
        with writing(folder.path):
            checkpoint.save(pack(student).cpu(), folder.path, tokenizer)
        model = checkpoint.load(folder.path)
        sizes = size_report(model)
        phase.update(note=f"{sizes.stored_bytes / 1e6:.2f} MB")
    metrics = evaluate_model(
        model.to(machine.device()), task, splits, tokenizer, name="evaluating the saved model", **options
    )
    result = RunResult(
        task=task.name,
        methods=recipe.methods,
        seed=recipe.seed,
        score=score(task, metrics),
        metrics=metrics,
        score_before_packing=before,
        sparsity=recipe.sparsity if recipe.uses("mp") else None,
        sparsity_reached=reached,
        pattern=recipe.pattern if recipe.uses("mp") else None,
        bits=recipe.bits if recipe.uses("qat") else None,
        parameters=sizes.parameters,
        nonzero=sizes.nonzero,
        paper_bytes=sizes.paper_bytes,
        stored_bytes=sizes.stored_bytes,
        rows={"train": len(rows), **{name: len(part) for name, part in splits.items()}},
        steps=trainer.state.global_step,
        seconds=round(trainer.seconds, 2),
        versions=_versions(),
        task_definition=task.as_dict(),
        teacher_score=prepared.teacher_score,
        threads=torch.get_num_threads(),
        processor=machine.processor(),
        fingerprint=prepared.fingerprint,
        lr=trainer.args.learning_rate,
        layers_past_95=nearly_removed,
        augmentation=prepared.augmentation,
    )
    folder.finish(result.as_dict())


def _versions() -> dict[str, str]:
    libraries = (sparseq, torch, transformers, datasets, safetensors)
    return {"python": platform.python_version(), **{library.__name__: library.__version__ for library in libraries}}
