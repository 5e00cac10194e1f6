"""Everything a run needs, loaded and checked before its folder is made."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from datasets import Dataset
from torch import Tensor, nn
from transformers import set_seed

from sparseq.distill import HiddenStates, TeacherLogits, digest_model, digest_texts, layer_map
from sparseq.errors import InputError
from sparseq.models import load_model
from sparseq.nn import convert, prunable
from sparseq.prune import MagnitudePruner, SparsitySchedule, dividing
from sparseq.tasks import CUSTOM, Data, Task, get_task, load_data
from sparseq_kernels.cache import cache_dir
from sparseq_kernels.patterns import Pattern

from . import machine
from .console import Reporter
from .data import check_length, tokenise
from .recipe import Recipe
from .scoring import predict_logits

if TYPE_CHECKING:
    from sparseq.augment import Augmented


@dataclass
class Prepared:
    """The run's data and models, on the CPU. `hidden` is None unless hidden states are compared.

    precision: of training and of the teacher's logits, 'fp32' or 'bf16'.
    """

    data: Data
    student: nn.Module
    tokenizer: Any
    precision: str
    teacher: nn.Module | None = None
    teacher_tokenizer: Any = None
    hidden: HiddenStates | None = None
    teacher_layers: tuple[int, ...] = ()

    @property
    def task(self) -> Task:
        return self.data.task


def kd_loss(recipe: Recipe, task: Task) -> str:
    """The loss on the teacher's logits, 'ce' or 'mse'. Raises InputError for ce where there are no classes."""
    if recipe.kd_loss == "auto":
        return "mse" if task.is_regression else "ce"
    if recipe.kd_loss == "ce" and task.is_regression:
        raise InputError(f"--kd-loss ce needs classes, and task {task.name!r} predicts a number: use --kd-loss mse")
    return recipe.kd_loss


def prepare(recipe: Recipe) -> Prepared:
    """Loads data and models and converts the student. Raises InputError for all that cannot run; writes nothing."""
    if recipe.task is not None and recipe.task.lower() != CUSTOM:
        get_task(recipe.task)
    precision = machine.pick_precision(recipe.precision)
    if recipe.augment_copies:
        from sparseq.augment.wordnet import load_wordnet

        load_wordnet(recipe.wordnet)
    data = load_data(
        recipe.task or CUSTOM,
        data_dir=recipe.data_dir,
        train_file=recipe.train_file,
        validation_file=recipe.validation_file,
        text_columns=recipe.text_columns or None,
        label_column=recipe.label_column,
        max_train_rows=recipe.max_train_rows,
        max_validation_rows=recipe.max_validation_rows,
        seed=recipe.seed,
    )
    task = data.task
    set_seed(recipe.seed)  # the new head is drawn here
    labels = {"num_labels": task.num_labels, "label_names": task.label_names, "regression": task.is_regression}
    student, tokenizer = load_model(recipe.model, layers=recipe.layers, **labels)  # type: ignore[arg-type]
    check_length(recipe.max_length, tokenizer, student, recipe.model)
    prepared = Prepared(data, student, tokenizer, precision)
    if recipe.uses("kd"):
        kd_loss(recipe, task)
        assert recipe.teacher is not None  # the recipe was validated
        prepared.teacher, prepared.teacher_tokenizer = load_model(recipe.teacher, teacher=True, **labels)  # type: ignore[arg-type]
        check_length(recipe.max_length, prepared.teacher_tokenizer, prepared.teacher, recipe.teacher)
        if recipe.hidden_loss:
            _prepare_hidden(prepared)
    if recipe.uses("qat") or recipe.uses("mp"):
        convert(
            student,
            bits=recipe.bits if recipe.uses("qat") else None,
            pattern=recipe.pattern if recipe.uses("mp") else "unstructured",
            activation=recipe.activation,
            scale=recipe.scale,
            exclude=(f"{HiddenStates.name}.*",),
        )
    if recipe.uses("mp"):
        pruner(recipe, student, steps=0)
    return prepared


def pruner(recipe: Recipe, student: nn.Module, steps: int) -> MagnitudePruner:
    """The recipe's pruner over so many steps. Raises InputError where the pattern does not fit a layer, naming it."""
    start, end = round(recipe.prune_warmup * steps), round(recipe.prune_end * steps)
    pattern = Pattern.parse(recipe.pattern)
    layers = dividing(prunable(student, embeddings=recipe.prune_embeddings), pattern, recipe.on_mismatch)
    return MagnitudePruner(
        layers,
        SparsitySchedule(recipe.sparsity, start, end, recipe.schedule),
        pattern,
        recipe.scope,
        every=max(1, (end - start) // recipe.prune_updates),
        regrow=recipe.regrow,
    )


def _prepare_hidden(prepared: Prepared) -> None:
    """Pairs the two models' layers. The teacher runs on the student's tokens then, so their vocabularies must agree."""
    assert prepared.teacher is not None
    if prepared.tokenizer.get_vocab() != prepared.teacher_tokenizer.get_vocab():
        raise InputError(
            "the hidden-state loss runs the teacher on the student's tokens, but their vocabularies differ: "
            "use models of one family, or --hidden-loss 0"
        )
    student, teacher = prepared.student.config, prepared.teacher.config
    pairs: Sequence[tuple[int, int]] = layer_map(student.num_hidden_layers, teacher.num_hidden_layers)  # type: ignore
    prepared.teacher_layers = tuple(theirs for _, theirs in pairs)
    prepared.hidden = HiddenStates([own for own, _ in pairs], student.hidden_size, teacher.hidden_size)  # type: ignore
    prepared.hidden.attach(prepared.student)


def training_rows(recipe: Recipe, prepared: Prepared, reporter: Reporter) -> tuple[Dataset, dict[str, Dataset]]:
    """Tokenised: training rows with their copies and, under kd, `teacher_logits`; and the validation splits."""
    assert prepared.data.train is not None
    rows = prepared.data.train
    with reporter.phase("preparing data") as phase:
        told = ""
        if recipe.augment_copies:
            rows, stats = _augmented(recipe, rows)
            reached = f"{100 * stats.rate:.3g} % of words replaced (asked {100 * recipe.augment_rate:.3g} %)"
            told = f" ({stats.copies:,} of them copies, {reached})"
        reading = prepared.tokenizer, recipe.max_length, prepared.student
        tokens = tokenise(rows, *reading)
        splits = {name: tokenise(part, *reading) for name, part in prepared.data.validations.items()}
        phase.update(note=f"{len(rows):,} training rows{told}, {sum(map(len, splits.values())):,} to validate on")
    if prepared.teacher is not None:
        logits = teacher_logits(recipe, prepared, rows, reporter)
        tokens = tokens.add_column("teacher_logits", logits.tolist())
    return tokens, splits


def teacher_logits(recipe: Recipe, prepared: Prepared, rows: Dataset, reporter: Reporter) -> Tensor:
    """The teacher's logits [rows, labels] on text rows, from the cache where they were computed before."""
    teacher, tokenizer = prepared.teacher, prepared.teacher_tokenizer
    assert teacher is not None
    texts = [rows[name] for name in ("text_a", "text_b") if name in rows.column_names]
    vocabulary = digest_texts([[f"{k} {v}" for k, v in sorted(tokenizer.get_vocab().items())]])
    key = (
        digest_texts(texts),
        digest_model(teacher),
        vocabulary,
        type(tokenizer).__name__,
        str(recipe.max_length),
        prepared.precision,
    )
    cache = TeacherLogits(cache_dir() / "logits", key)

    def compute() -> Tensor:
        tokens = tokenise(rows, tokenizer, recipe.max_length, teacher)
        return predict_logits(
            teacher.to(machine.device()), tokens, tokenizer,
            batch_size=recipe.eval_batch_size, precision=prepared.precision, phase=phase,
        )  # fmt: skip

    with reporter.phase("teacher logits", len(rows)) as phase:
        if machine.rank() == 0:
            cache.get(len(rows), compute)
        machine.barrier()
        logits = cache.get(len(rows), compute)
        phase.update(len(rows), f"kept in {cache.path.parent}")
    if not logits.isfinite().all():
        raise InputError(f"the logits of teacher {recipe.teacher} hold NaN or infinity: use another teacher")
    return logits


def _augmented(recipe: Recipe, rows: Dataset) -> "Augmented":
    from sparseq.augment import SynonymAugmenter, augment_dataset
    from sparseq.augment.wordnet import load_wordnet

    augmenter = SynonymAugmenter(
        load_wordnet(recipe.wordnet),
        rate=recipe.augment_rate,
        copies=recipe.augment_copies,
        pos_aware=recipe.pos_aware,
        protected=recipe.protected_words,
        seed=recipe.seed,
    )
    return augment_dataset(rows, augmenter)
