"""The plan of a run, reported before it starts; `dry_run` stops there."""

import math
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn

from sparseq.criterion import FISHER, MAGNITUDE
from sparseq.distill import HiddenStates
from sparseq.nn import LAYERS, MaskedWeight, QuantSparseLinear, named_layers, pack, prunable
from sparseq.nn.blocks import repeated_blocks
from sparseq.nn.left_out import left_out
from sparseq.nn.smoothing import foldable
from sparseq.paths import check_new_folder
from sparseq.size import SizeReport, size_report
from sparseq.tasks import score
from sparseq.tasks.metrics import Metric
from sparseq.terminal import counted
from sparseq_kernels.patterns import Pattern

from . import advice, distributed, hardware
from .baseline import Baseline, validation_metrics
from .class_weights import described_weights
from .comparing import load_baseline
from .data import describe_cut
from .distributed import start_processes
from .folder import RunFolder
from .gate import compared_model
from .given import Given
from .prepare import Prepared, prepare, pruner
from .progress import Reporter
from .quantizing import described_quantization
from .quiet import quiet_libraries
from .recipe import Recipe
from .rows import Rows, tokenised_rows
from .teacher import validation_logits
from .trainer import training_arguments

WIDTH = 80
_HEADING = 11
EMBEDDINGS = "pruning them costs accuracy (--prune-embeddings)"
CRITERIA = {MAGNITUDE: "magnitude", FISHER: "the loss that their removal adds (fisher)"}
RANKED = {
    "global": "over all layers together",
    "layer": "in each layer",
    "lamp": "by layer-adaptive scores",
    "normalized": "relative to their layer's",
}


@dataclass(frozen=True)
class Plan:
    """What was inferred from the data and models, and what follows from it.

    lines: the plan as text, at most 80 columns wide if words allow. rows: of each split, training with its augmented
    copies. texts_cut: of all splits. steps: of the optimizer. teacher_score: on the validation rows; None without kd.
    pruned, quantized: names of layers. left_out: reason -> names of the layers that are not pruned. embedding_bits,
    vocabulary, augmentation: see `RunResult`.
    """

    task: str
    methods: tuple[str, ...]
    rows: dict[str, int]
    texts_cut: int
    steps: int
    teacher_score: float | None
    pruned: tuple[str, ...]
    left_out: dict[str, tuple[str, ...]]
    quantized: tuple[str, ...]
    embedding_bits: int | None
    vocabulary: dict[str, int]
    augmentation: dict[str, float]
    lines: tuple[str, ...]


@dataclass(frozen=True)
class DryRun:
    """A plan and the expected sizes: see `sparseq.size_report`; bytes and numbers of parameters."""

    plan: Plan
    parameters: int
    nonzero: int
    paper_bytes: int
    stored_bytes: int

    def as_dict(self) -> dict[str, Any]:
        """As JSON, without the lines."""
        plan = {key: value for key, value in asdict(self.plan).items() if key != "lines"}
        sizes = {key: value for key, value in asdict(self).items() if key != "plan"}
        return {"dry_run": True, **plan, **sizes}


def dry_run(
    recipe: Recipe,
    *,
    train: Any = None,
    validation: Any = None,
    data: Any = None,
    metric: Metric | None = None,
    reporter: Reporter | None = None,
) -> DryRun:
    """Does everything that `compress` does before it trains, and writes nothing.

    Loads and checks data and models, scores the teacher, and prunes and packs the untrained student to find the
    expected sizes. Raises InputError for everything that `compress` would refuse before it trains.
    """
    given = Given(train, validation, metric, data)
    recipe = recipe.validate(rows=given.rows).resolved()
    assert recipe.out is not None  # validated
    start_processes()
    reporter = reporter or Reporter(silent=distributed.rank() > 0)
    quiet_libraries()
    folder = RunFolder(recipe.out)
    finished = distributed.in_first(lambda: folder.check(recipe))
    if not finished:
        distributed.in_first(lambda: check_new_folder(folder.path, "--out"))
    with reporter.phase("loading models and data"):
        _, prepared = distributed.in_all(lambda: (training_arguments(recipe, folder), prepare(recipe, given)))
    made, _ = plan(recipe, prepared, reporter, keep=False)
    if finished:
        reporter.say(f"{folder.path}: finished before; without --dry-run it would not be run again")
    sizes = _expected(recipe, prepared)
    return DryRun(made, sizes.parameters, sizes.nonzero, sizes.paper_bytes, sizes.stored_bytes)


def plan(recipe: Recipe, prepared: Prepared, reporter: Reporter, *, keep: bool = True) -> tuple[Plan, Rows]:
    """Tokenises the rows, scores the teacher, reports the plan, and returns it and the rows.

    keep: whether to store the teacher's logits on the validation rows in the cache.
    """
    if (compared := compared_model(recipe)) is not None and (prepared.teacher is None or compared != recipe.teacher):
        prepared.baseline = distributed.in_first(lambda: load_baseline(recipe, prepared.data, reporter))
    rows = tokenised_rows(recipe, prepared, reporter)
    metrics: dict[str, float] = {}
    if prepared.teacher is not None:
        logits = validation_logits(recipe, prepared, reporter, keep=keep)
        metrics = validation_metrics(prepared.data, logits)
        prepared.teacher_score = score(prepared.task, metrics)
        if compared is not None and compared == recipe.teacher:
            prepared.baseline = Baseline(compared, prepared.fingerprint["teacher"], logits)
    student = prepared.student
    pruned, left = _pruning(recipe, student)
    quantized = [
        name for name, layer in named_layers(student) if isinstance(layer, MaskedWeight) and layer.bits is not None
    ]
    made = Plan(
        task=prepared.task.name,
        methods=recipe.methods,
        rows=rows.counts(),
        texts_cut=rows.cut,
        steps=math.ceil(recipe.epochs * math.ceil(len(rows.texts) / recipe.batch_size)),
        teacher_score=prepared.teacher_score,
        pruned=tuple(pruned),
        left_out={why: tuple(names) for why, names in left.items()},
        quantized=tuple(quantized),
        embedding_bits=recipe.width_of_embeddings,
        vocabulary=prepared.vocabulary_sizes,
        augmentation=rows.augmentation,
        lines=(),
    )
    made = replace(made, lines=tuple(_lines(recipe, prepared, made, metrics)))
    for line in made.lines:
        reporter.say(line)
    return made, rows


def _pruning(recipe: Recipe, student: nn.Module) -> tuple[list[str], dict[str, list[str]]]:
    """(names of the layers that are pruned, reason -> names of the other layers with a matrix)."""
    if not recipe.uses("mp"):
        return [], {}
    pattern = Pattern.parse(recipe.pattern)
    found = prunable(student, embeddings=recipe.prune_embeddings)
    pruned = [name for name, layer in found.items() if pattern.divides(layer.weight.shape)]
    left: dict[str, list[str]] = {}
    blocks = tuple(f"{name}." for name in repeated_blocks(student))
    weights = {id(layer.weight): name for name, layer in found.items()}
    for name, layer in named_layers(student):
        if name in pruned or not isinstance(layer, MaskedWeight):
            continue
        if name in found:
            why = f"pattern {pattern} does not divide them"
        elif not isinstance(layer, QuantSparseLinear):
            why = EMBEDDINGS
        elif id(layer.weight) in weights:
            why = f"they share the weight of {weights[id(layer.weight)]}"
        elif not name.startswith(blocks):
            why = "outside the encoder's blocks"
        else:
            why = "they share an embedding's weight"
        left.setdefault(why, []).append(name)
    others = left_out(student, (), ())
    if others:
        left[f"no pruned or quantized form: {others}"] = []
    return pruned, left


def _lines(recipe: Recipe, prepared: Prepared, made: Plan, metrics: dict[str, float]) -> Iterator[str]:
    data = prepared.data.summary()
    if made.texts_cut:
        data.append(describe_cut(made.texts_cut, recipe.max_length))
    if recipe.augment_copies:
        reached = f"{made.augmentation['rate']:.1%} of words replaced, {recipe.augment_rate:.1%} asked"
        data.append(f"{made.rows['train']:,} training rows with their augmented copies ({reached})")
    if prepared.class_weights is not None:
        data.append(described_weights(prepared.class_weights, prepared.task))
    yield from _section("data", data)
    yield from _section("student", [_model(prepared.student, recipe.model), *_vocabulary(made)])
    if prepared.teacher is not None:
        told = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        yield from _section(
            "teacher",
            [_model(prepared.teacher, str(recipe.teacher)),
             f"it scores {prepared.teacher_score:.4f} on the validation rows ({told})",
             *advice.weak_teacher(prepared.data, prepared.teacher_score or 0.0)],
        )  # fmt: skip
    if prepared.baseline is not None:
        yield from _section("baseline", [prepared.baseline.described(prepared.data, recipe.max_drop)])
    if recipe.uses("mp"):
        weights = sum(prepared.student.get_submodule(name).weight.numel() for name in made.pruned)  # type: ignore
        what = counted(len(made.pruned), "layer" if recipe.prune_embeddings else "linear layer")
        ranked = f"ranked by {CRITERIA[recipe.criterion]}, {RANKED[recipe.scope]}"
        how = f"to {recipe.sparsity:.0%} in pattern {recipe.pattern}, {ranked}"
        reasons = (f"not {_names(names, why)}: {why}" if names else why for why, names in made.left_out.items())
        when = advice.described_pruning(recipe, made.steps)
        yield from _section("pruning", [f"{what}, {weights:,} weights, {how}", *when, *reasons])
    if recipe.quantizes:
        others = left_out(prepared.student, (), ())
        left = [f"not {others}: no quantized form"] if others and not recipe.uses("mp") else []
        counts = made.rows["train"], len(made.quantized), len(foldable(prepared.student))
        yield from _section("quantized", [*described_quantization(recipe, _widths(recipe, made), *counts), *left])
    if not recipe.epochs:
        yield from _section("training", ["none (0 epochs): the model is taken as it is"])
        return
    place = hardware.device().type.upper()
    if place == "CPU":
        place += f" ({counted(torch.get_num_threads(), 'thread')})"
    passes = f"{counted(recipe.epochs, 'epoch')} of {made.rows['train']:,} rows"
    steps = f"{made.steps:,} steps of {recipe.batch_size} rows ({passes})"
    yield from _section(
        "training",
        [f"{steps} at lr {advice.described_rate(recipe, prepared.student)}, in {prepared.precision} on {place}",
         *advice.described_evaluations(recipe)],
    )  # fmt: skip


def _vocabulary(made: Plan) -> Iterator[str]:
    if made.vocabulary:
        before, after = made.vocabulary["before"], made.vocabulary["after"]
        yield f"{after:,} of {before:,} tokens: those of the training rows, special ones and single characters"


def _widths(recipe: Recipe, made: Plan) -> str:
    if made.embedding_bits == recipe.bits:
        return f"{recipe.bits} bits"
    return f"{recipe.bits} bits, embeddings to {made.embedding_bits}"


def _model(model: nn.Module, name: str) -> str:
    layers = getattr(model.config, "num_hidden_layers", None)
    numbers = [counted(layers, "layer")] if layers else []
    # the projections of the hidden-state loss are not part of the final model
    own = [layer for layer in size_report(model).layers if not layer.name.startswith(HiddenStates.name)]
    numbers.append(f"{sum(layer.parameters for layer in own):,} parameters")
    packed = " (compressed)" if any(isinstance(m, tuple(LAYERS.values())) and not isinstance(m, MaskedWeight)
                                    for m in model.modules()) else ""  # fmt: skip
    return f"{type(model).__name__}{packed}, {', '.join(numbers)}, from {name}"


def _section(heading: str, sentences: Iterable[str]) -> Iterator[str]:
    """Lines of at most `WIDTH` columns, the first with the heading; each sentence begins a line."""
    for sentence in sentences:
        yield from textwrap.wrap(
            sentence, WIDTH, initial_indent=heading.ljust(_HEADING), subsequent_indent=" " * (_HEADING + 2),
            break_long_words=False, break_on_hyphens=False,
        )  # fmt: skip
        heading = ""


def _names(names: tuple[str, ...], why: str) -> str:
    """A few of the names, and how many more there are; for embeddings, only their number."""
    if why == EMBEDDINGS:
        return counted(len(names), "embedding")
    shown = ", ".join(names[:4])
    return shown if len(names) <= 4 else f"{shown} and {len(names) - 4} more"


def _expected(recipe: Recipe, prepared: Prepared) -> SizeReport:
    """The sizes of the student as it is, pruned and packed; training changes its values but not their number."""
    student = prepared.student
    if prepared.hidden is not None:
        prepared.hidden.detach(student)
    if recipe.uses("mp"):
        pruner(recipe, student, steps=0).step(0)
    for _, layer in named_layers(student):
        if isinstance(layer, QuantSparseLinear) and not layer.calibrated:
            with torch.no_grad():
                layer.input_scale.fill_(1.0)  # type: ignore[union-attr]
    return size_report(pack(student))
