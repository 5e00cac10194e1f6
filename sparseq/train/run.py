"""`compress`: a recipe in, a folder with the compressed model and its measured numbers out."""

import gc
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
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
from sparseq.reading import build
from sparseq.size import size_report
from sparseq.tasks import Task, score

from . import advice, interrupt, machine
from .callbacks import Pruning, QuantizationStart, RowOrder, ShowProgress
from .collate import Collate, input_columns
from .console import Reporter
from .data import SimilarLengths, lengths
from .fingerprint import Fingerprint, compare, of_data, of_model
from .folder import RunFolder
from .plan import plan
from .prepare import (
    Prepared,
    kd_loss,
    load_student,
    load_teacher,
    prepare,
    pruner,
    read_data,
    training_rows,
    wordnet_fingerprint,
)
from .processes import start_processes
from .recipe import Recipe
from .scoring import evaluate_model
from .trainer import CompressTrainer, Losses, training_arguments

CALIBRATION_BATCHES = 8
LESS_MEMORY = (
    "give a smaller --batch-size, --eval-batch-size or --max-length (another --batch-size or --max-length is another "
    "run, into another --out), or free some; the same command goes on from its last checkpoint"
)


@dataclass(frozen=True)
class RunResult:
    """What a run came to; `metrics.json` holds the same.

    Scores and metrics are fractions on the validation data, of the packed model as loaded back from the folder;
    `score_before_packing` is the trained model's. sparsity, pattern: as asked for, None without mp; sparsity_reached:
    share of all the weights that mp acts on which is removed. bits: None without qat. Sizes in bytes: see
    `sparseq.size_report`. rows: of each split, training with its augmented copies. steps: of the optimizer. seconds:
    wall time, over resumes. task_definition: names the labels for predicting. teacher_score: the teacher's own on the
    validation data, None without kd. threads, processor: of the process that scored, and of training unless it was
    resumed on another machine; sums are rounded otherwise with another number of threads. fingerprint: digests of data,
    models and tokenizers (see `fingerprint`). lr: the peak learning rate. layers_past_95: sparsity of each layer of
    which mp removed more than 95 %. The last six are empty in what older versions wrote. finished_before: the run was
    found finished, and was not run again.
    """

    task: str
    methods: tuple[str, ...]
    seed: int
    score: float
    metrics: dict[str, float]
    score_before_packing: float
    sparsity: float | None
    sparsity_reached: float
    pattern: str | None
    bits: int | None
    parameters: int
    nonzero: int
    paper_bytes: int
    stored_bytes: int
    rows: dict[str, int]
    steps: int
    seconds: float
    versions: dict[str, str]
    task_definition: dict[str, Any]
    teacher_score: float | None = None
    threads: int | None = None
    processor: str | None = None
    fingerprint: dict[str, str] = field(default_factory=dict)
    lr: float | None = None
    layers_past_95: dict[str, float] = field(default_factory=dict)
    out: str = field(default="", compare=False)
    finished_before: bool = field(default=False, compare=False)

    def as_dict(self) -> dict[str, Any]:
        """The content of `metrics.json`."""
        return {key: value for key, value in asdict(self).items() if key not in ("out", "finished_before")}

    @classmethod
    def from_folder(cls, folder: str | Path) -> "RunResult":
        """The result that a finished run left in its folder. Raises InputError where there is none."""
        values = RunFolder(folder).metrics()
        try:
            return build(cls, {**values, "out": str(folder)})
        except ValueError as error:
            raise InputError(
                f"the metrics.json of {folder} is another version's ({error}): run it into a new folder"
            ) from None


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
        return machine.in_first(lambda: _finished_before(recipe, folder, reporter))
    with ExitStack() as held, memory_kept(LESS_MEMORY):
        machine.in_first(lambda: held.enter_context(folder.locked(reporter.say)))
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


def _finished_before(recipe: Recipe, folder: RunFolder, reporter: Reporter) -> RunResult:
    """The result of a run that has finished here. InputError: its data or models are others now, or the model that it
    has saved is damaged."""
    result = RunResult.from_folder(folder.path)
    try:
        checkpoint.verify(folder.path)
    except InputError as error:
        raise InputError(
            f"--out {folder.path} holds a finished run whose model is damaged ({error}): remove that folder to run it "
            "again, or give another one"
        ) from error
    task = Task.from_dict(result.task_definition)
    sources: dict[str, Callable[[], Fingerprint]] = {
        "data": lambda: of_data(read_data(recipe)),
        "model": lambda: of_model(*load_student(recipe, task)),
    }
    if recipe.uses("kd"):
        sources["teacher"] = lambda: of_model(*load_teacher(recipe, task), "teacher")
    if recipe.augment_copies:
        sources["wordnet"] = lambda: wordnet_fingerprint(recipe)
    reporter.say(f"{folder.path}: finished before, not run again")
    if not result.fingerprint:
        reporter.say("an older version ran it: whether its data and models are still the same is not known")
    else:
        with reporter.phase("comparing data and models"):
            changed, not_compared = compare(recipe, result.fingerprint, sources)
        if changed:
            raise folder.other_run(changed)
        for source, why in not_compared.items():
            reporter.say(f"whether the {source} is still the same cannot be told ({why})")
    folder.tidy()  # in case the run was killed after its last step
    return replace(result, finished_before=True)


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
    )
    folder.finish(result.as_dict())


def _versions() -> dict[str, str]:
    libraries = (sparseq, torch, transformers, datasets, safetensors)
    return {"python": platform.python_version(), **{library.__name__: library.__version__ for library in libraries}}
