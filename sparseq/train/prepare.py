"""Loads and checks everything that a run needs, before its folder is created."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from torch.optim import Optimizer
from transformers import set_seed

from sparseq.distill import HiddenStates, layer_map
from sparseq.errors import InputError
from sparseq.models import load_model
from sparseq.nn import convert
from sparseq.nn.smoothing import foldable
from sparseq.prune import Pruner, gradual_pruner
from sparseq.tasks import CUSTOM, Data, Task, compute_metrics, get_task, load_data

from .baseline import Baseline
from .class_weights import class_weights
from .fingerprint import Fingerprint, of_data, of_model, of_wordnet
from .given import Given
from .precision import pick_precision
from .recipe import Recipe
from .sources import validation_source
from .trial import check_packs, check_reads, check_rebuilds
from .vocabulary import SmallerVocabulary, keep_seen


@dataclass
class Prepared:
    """The run's data and models, on the CPU. `hidden` is None unless hidden states are compared.

    precision: of training and of the teacher's logits, 'fp32' or 'bf16'. teacher_score: on the validation rows, once it
    is known. baseline: what the score is compared with, if anything, once it is known. vocabulary: None unless tokens
    were removed. class_weights: in the loss, in the order of the classes; None if all are alike. fingerprint: of
    everything that was loaded, as it was loaded.
    """

    data: Data
    student: nn.Module
    tokenizer: Any
    precision: str
    teacher: nn.Module | None = None
    teacher_tokenizer: Any = None
    hidden: HiddenStates | None = None
    teacher_layers: tuple[int, ...] = ()
    teacher_score: float | None = None
    baseline: Baseline | None = None
    vocabulary: SmallerVocabulary | None = None
    class_weights: tuple[float, ...] | None = None
    fingerprint: Fingerprint = field(default_factory=dict)

    @property
    def task(self) -> Task:
        return self.data.task

    @property
    def vocabulary_sizes(self) -> dict[str, int]:
        """See `RunResult.vocabulary`."""
        return {} if self.vocabulary is None else self.vocabulary.sizes()


def kd_loss(recipe: Recipe, task: Task) -> str:
    """The loss on the teacher's logits, 'ce' or 'mse'. Raises InputError for ce if there are no classes."""
    if recipe.kd_loss == "auto":
        return "mse" if task.is_regression else "ce"
    if recipe.kd_loss == "ce" and task.is_regression:
        raise InputError(f"--kd-loss ce needs classes, and task {task.name!r} predicts a number: use --kd-loss mse")
    return recipe.kd_loss


def prepare(recipe: Recipe, given: Given | None = None) -> Prepared:
    """Loads data and models and converts the student; writes nothing. Raises InputError if the run is not possible."""
    if recipe.task is not None and recipe.task.lower() != CUSTOM:
        get_task(recipe.task)
    precision = pick_precision(recipe.precision)
    fingerprint = wordnet_fingerprint(recipe)
    data = read_data(recipe, given)
    weights = class_weights(recipe.class_weights, data)
    if given is not None and given.metric is not None:  # one that fails does so before the training
        for rows in data.validations.values():
            labels = rows.with_format("numpy")["label"][:]
            compute_metrics(data.task, labels, labels)
    task = data.task
    reading: dict[str, Any] = {"pairs": len(task.columns) == 2, "num_labels": task.num_labels}
    student, tokenizer = load_student(recipe, task)
    row, logits = check_reads(student, tokenizer, recipe.max_length, name=recipe.model, **reading)
    check_rebuilds(student, row, logits, recipe.model)
    prepared = Prepared(data, student, tokenizer, precision, class_weights=weights)
    prepared.fingerprint = {**of_data(data), **of_model(student, tokenizer), **fingerprint}
    if recipe.uses("kd"):
        kd_loss(recipe, task)
        prepared.teacher, prepared.teacher_tokenizer = load_teacher(recipe, task)
        teacher = prepared.teacher, prepared.teacher_tokenizer
        check_reads(*teacher, recipe.max_length, name=f"the teacher {recipe.teacher}", **reading)
        prepared.fingerprint |= of_model(prepared.teacher, prepared.teacher_tokenizer, "teacher")
        if recipe.hidden_loss:
            _prepare_hidden(prepared)
    if recipe.vocabulary == "seen":
        assert data.train is not None
        prepared.vocabulary = keep_seen(recipe, student, tokenizer, data.train)
        prepared.tokenizer = tokenizer = prepared.vocabulary.tokenizer
        row, logits = check_reads(student, tokenizer, recipe.max_length, name=recipe.model, **reading)
        check_rebuilds(student, row, logits, recipe.model)
    if recipe.quantizes or recipe.uses("mp"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the plan reports what is left out
            convert(
                student,
                bits=recipe.bits if recipe.quantizes else None,
                embedding_bits=recipe.embedding_bits if recipe.quantizes else None,
                pattern=recipe.pattern if recipe.uses("mp") else "unstructured",
                activation=recipe.activation,
                scale="max" if recipe.scale == "max" else "lsq",  # mse: the scales are fitted after training
            )
        if recipe.uses("mp"):
            pruner(recipe, student, steps=0)
        if recipe.smooth is not None and not foldable(student):
            raise InputError(
                f"--smooth acts on the attention of BERT-like encoders, and {type(student).__name__} has none that is "
                "known: leave --smooth out"
            )
        check_packs(student, recipe)
    if prepared.hidden is not None:
        prepared.hidden.attach(student)  # set only now, because it is neither converted nor saved
    return prepared


def read_data(recipe: Recipe, given: Given | None = None, task: Task | None = None) -> Data:
    """The recipe's training and validation rows, or those that are given.

    task: of a finished run, whose label numbers are kept.
    """
    given = given or Given()
    return load_data(
        task or recipe.task or CUSTOM,
        **validation_source(recipe),
        train_file=recipe.train_file,
        train_split=recipe.train_split,
        label_kind=recipe.label_kind,
        max_train_rows=recipe.max_train_rows,
        held_out_rows=recipe.held_out_rows,
        seed=recipe.seed,
        # only the teacher's loss is used
        allow_unlabelled=recipe.uses("kd") and recipe.kd_alpha == 1 and recipe.augment_alpha in (None, 1),
        train=given.train,
        validation=given.validation,
        data=given.data,
        metric=given.metric,
    )


def load_student(recipe: Recipe, task: Task) -> tuple[nn.Module, Any]:
    """(the recipe's student before conversion, its tokenizer). Seeds every generator.

    Raises InputError for a student without a trained head for the task, if nothing is trained.
    """
    set_seed(recipe.seed)  # a new head is initialized here
    return load_model(recipe.model, layers=recipe.layers, trained=recipe.epochs == 0, **_labels(task))


def load_teacher(recipe: Recipe, task: Task) -> tuple[nn.Module, Any]:
    """(the recipe's teacher, its tokenizer)."""
    assert recipe.teacher is not None  # the recipe was validated
    return load_finetuned(recipe.teacher, task)


def load_finetuned(name: str, task: Task) -> tuple[nn.Module, Any]:
    """(a model with a trained head for the task, its tokenizer): a hub id or a folder, also of a compressed model."""
    return load_model(name, teacher=True, **_labels(task))


def wordnet_fingerprint(recipe: Recipe) -> Fingerprint:
    """The fingerprint of the WordNet that copies are made with; empty without copies."""
    if not recipe.augment_copies:
        return {}
    from sparseq.augment.finding import load_wordnet

    return of_wordnet(load_wordnet(recipe.wordnet).path)


def _labels(task: Task) -> dict[str, Any]:
    return {"num_labels": task.num_labels, "label_names": task.label_names, "regression": task.is_regression}


def pruner(recipe: Recipe, student: nn.Module, steps: int, optimizer: Optimizer | None = None) -> Pruner:
    """The recipe's pruner for this many steps. Raises InputError, naming the layer, if the pattern does not fit it.

    optimizer: of the training. Without one, weights are ranked by magnitude whatever the recipe says, in each layer if
    it says so and otherwise with that criterion's own scope: to check shapes, and to estimate sizes. How many weights
    stay is exact then, and where they are, which the stored bytes depend on a little, only with the scope "layer".
    """
    return gradual_pruner(student, recipe.pruning, steps, optimizer)


def _prepare_hidden(prepared: Prepared) -> None:
    """Pairs the layers of the two models.

    Their states are compared token by token, so their vocabularies must agree.
    """
    assert prepared.teacher is not None
    own, theirs = prepared.tokenizer, prepared.teacher_tokenizer
    if own.get_vocab() != theirs.get_vocab() or own.padding_side != theirs.padding_side:
        raise InputError(
            "the hidden-state loss compares the two models token by token, but their vocabularies differ: "
            "use models of one family, or --hidden-loss 0"
        )
    student, teacher = prepared.student.config, prepared.teacher.config
    pairs: Sequence[tuple[int, int]] = layer_map(student.num_hidden_layers, teacher.num_hidden_layers)  # type: ignore
    prepared.teacher_layers = tuple(theirs for _, theirs in pairs)
    prepared.hidden = HiddenStates([own for own, _ in pairs], student.hidden_size, teacher.hidden_size)  # type: ignore
