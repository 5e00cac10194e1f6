"""`compress`: runs a recipe, and leaves a folder with the compressed model and its measured numbers."""

import platform
import time
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import datasets
import safetensors
import tokenizers
import torch
import transformers

import sparseq
from sparseq import checkpoint
from sparseq.distill import digest_tokenizer
from sparseq.errors import InputError
from sparseq.failures import memory_kept, writing
from sparseq.models import load_tokenizer
from sparseq.nn import pack, prunable
from sparseq.prune import layer_sparsities, total_sparsity
from sparseq.size import size_report
from sparseq.tasks import score
from sparseq.tasks.metrics import Metric

from . import advice, answers, distributed, hardware, interrupt
from .distributed import start_processes
from .fingerprint import of_copies
from .finished import finished_before
from .folder import RunFolder
from .following import Following
from .given import Given
from .plan import plan
from .prepare import Prepared, prepare
from .progress import Reporter
from .quiet import quiet_libraries
from .recipe import Recipe
from .result import RunResult
from .rows import Rows, training_rows
from .scoring import evaluate_model
from .trainer import CompressTrainer, training_arguments
from .training import train as train_student

LESS_MEMORY = (
    "give a smaller --batch-size, --eval-batch-size or --max-length (another --batch-size or --max-length is another "
    "run, into another --out), or free some; the same command continues from its last checkpoint"
)


@interrupt.interruptible()
def compress(
    recipe: Recipe,
    *,
    train: Any = None,
    validation: Any = None,
    data: Any = None,
    metric: Metric | None = None,
    reporter: Reporter | None = None,
) -> RunResult:
    """Runs a recipe to its end and returns the result.

    train, validation: rows in the place of files: a `datasets.Dataset`, a data frame (pandas, polars), an Arrow table,
    a dict of columns or a list of dicts; the recipe's `text_columns` and `label_column` name their columns. data: both
    at once, a `datasets.DatasetDict` or another dict of splits, of which the recipe's `train_split` and
    `validation_split` are taken. metric: a function of the true and the predicted labels, such as those of
    scikit-learn, which becomes the score; higher is better. The same call with the same rows and metric continues the
    run.

    After an interruption, the same call continues from the last checkpoint. The folder `recipe.out` then contains
    `model.safetensors`, `config.json`, the tokenizer, `recipe.toml` and `metrics.json`. A run that has finished there
    before is not run again. Only one run at a time can use the folder. Under torchrun every process calls this
    function.

    Raises InputError for a recipe, data or models that cannot run (before anything is written); for a folder that
    contains another run, or the same run with other data or models, or that another process uses; and for a loss,
    gradient or weights that are not finite, naming the layer. Raises MachineError if the disk is full or memory runs
    out; the same call continues afterwards.
    """
    began = time.monotonic()
    given = Given(train, validation, metric, data)
    recipe = recipe.validate(rows=given.rows).resolved()
    assert recipe.out is not None  # validated
    start_processes()
    reporter = reporter or Reporter(silent=distributed.rank() > 0)
    quiet_libraries()
    folder = RunFolder(recipe.out)
    if distributed.in_first(lambda: folder.check(recipe)):
        return distributed.in_first(lambda: finished_before(recipe, folder, reporter, given))
    with ExitStack() as held, memory_kept(LESS_MEMORY):
        distributed.in_first(lambda: held.enter_context(folder.locked(reporter.say)))
        if distributed.in_first(
            lambda: folder.check(recipe)
        ):  # finished by a run that ended just before this one got the lock
            return distributed.in_first(lambda: finished_before(recipe, folder, reporter, given))
        with reporter.phase("loading models and data"):
            arguments, prepared = distributed.in_all(
                lambda: (training_arguments(recipe, folder), prepare(recipe, given))
            )
        _, tokenised = plan(recipe, prepared, reporter)
        if recipe.augment_copies:
            prepared.fingerprint |= of_copies(tokenised.texts)
        for damage in distributed.in_first(lambda: folder.begin(recipe, prepared.fingerprint)):
            reporter.say(damage)
        try:
            rows = training_rows(recipe, prepared, tokenised, reporter)
            following = Following(recipe, prepared, folder, tokenised, reporter)
            with following.reports:
                trainer = train_student(recipe, prepared, folder, arguments, rows, following, began, reporter)
                distributed.in_first(lambda: _finish(recipe, prepared, folder, trainer, tokenised, reporter))
        except InputError:
            if distributed.rank() == 0:
                folder.abandon()
            raise
    return RunResult.from_folder(folder.path)


def _finish(
    recipe: Recipe,
    prepared: Prepared,
    folder: RunFolder,
    trainer: CompressTrainer,
    rows: Rows,
    reporter: Reporter,
) -> None:
    """Scores, packs, saves, loads back and scores again, then writes `metrics.json`, which marks the run finished."""
    student, task, tokenizer = prepared.student, prepared.task, prepared.tokenizer
    options: dict[str, Any] = {"batch_size": recipe.eval_batch_size, "reporter": reporter}
    before = score(
        task, evaluate_model(student, task, rows.splits, tokenizer, name="evaluating before packing", **options)
    )
    pruned = prunable(student, embeddings=recipe.prune_embeddings) if recipe.uses("mp") else {}
    reached, nearly_removed = total_sparsity(pruned), advice.nearly_removed(layer_sparsities(pruned))
    with reporter.phase("packing and saving") as phase:
        with writing(folder.path):
            checkpoint.save(pack(student).cpu(), folder.path, tokenizer)
        model = checkpoint.load(folder.path)
        sizes = size_report(model)
        phase.update(note=f"{sizes.stored_bytes / 1e6:.2f} MB")
    right: list[bool] = []
    logits: dict[str, Any] = {}
    model = model.to(hardware.device())
    metrics = evaluate_model(
        model, task, rows.splits, tokenizer, name="evaluating the saved model", right=right, kept=logits, **options
    )
    held_out: dict[str, float] = {}
    if rows.held_out:
        alone = replace(task, validation_splits=tuple(rows.held_out))
        held_out = evaluate_model(model, alone, rows.held_out, tokenizer, name="evaluating on held-out rows", **options)
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
        bits=recipe.bits if recipe.quantizes else None,
        parameters=sizes.parameters,
        nonzero=sizes.nonzero,
        paper_bytes=sizes.paper_bytes,
        stored_bytes=sizes.stored_bytes,
        rows=rows.counts(),
        steps=trainer.state.global_step,
        seconds=round(trainer.seconds, 2),
        versions=_versions(),
        task_definition=task.as_dict(),
        teacher_score=prepared.teacher_score,
        threads=torch.get_num_threads(),
        processor=hardware.processor(),
        fingerprint=prepared.fingerprint,
        lr=trainer.args.learning_rate if recipe.epochs else None,
        layers_past_95=nearly_removed,
        augmentation=rows.augmentation,
        precision=prepared.precision,
        backend=trainer.conditions.get("backend"),
        criterion=recipe.criterion if recipe.uses("mp") else None,
        scope=recipe.scope if recipe.uses("mp") else None,
        texts_cut=rows.cut,
        tokenizer=digest_tokenizer(load_tokenizer(folder.path)),
        held_out_score=score(alone, held_out) if held_out else None,
        held_out_metrics=held_out,
        embedding_bits=recipe.width_of_embeddings,
        vocabulary=prepared.vocabulary_sizes,
        right=answers.to_text(right) if right else None,
        kept_step=None if (best := trainer.following.chosen(trainer.state.global_step)) is None else best.step,
        selected_on=None if best is None else trainer.following.evaluated_on,
        dataset=prepared.data.origin,
        drop=None if prepared.baseline is None else prepared.baseline.drop(prepared.data, logits, recipe.max_drop),
    )
    folder.finish(result.as_dict())
    trainer.following.reports.finish(result)


def _versions() -> dict[str, str]:
    libraries = (sparseq, torch, transformers, tokenizers, datasets, safetensors)
    return {"python": platform.python_version(), **{library.__name__: library.__version__ for library in libraries}}
