"""Logits and scores: of a loaded model, and of a finished run's folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tokenizers
import torch
import transformers
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import DataCollatorWithPadding

from sparseq import checkpoint
from sparseq.distill import digest_tokenizer
from sparseq.errors import InputError
from sparseq.models import load_tokenizer
from sparseq.nn import find_nonfinite
from sparseq.onnx import OnnxModel, is_onnx
from sparseq.tasks import Task, compute_metrics, load_data, merge_splits

from . import hardware
from .collate import input_columns
from .data import by_length, tokenise
from .folder import RECIPE, RunFolder
from .onnx_run import read_run
from .precision import EVALUATION_PRECISION, arithmetic
from .quiet import quiet_libraries
from .recipe import Recipe
from .sources import validation_source

if TYPE_CHECKING:
    from datasets import Dataset

    from .progress import Phase, Reporter


def predict_logits(
    model: nn.Module,
    rows: Dataset,
    tokenizer: Any,
    *,
    batch_size: int,
    precision: str = EVALUATION_PRECISION,
    phase: Phase | None = None,
) -> Tensor:
    """Logits [rows, labels] of tokenised rows, in fp32 on the CPU, in the order of the rows.

    The model runs on the device of its parameters, and is left in eval mode. Evaluation is always in fp32, so that a
    score depends neither on how a model was trained nor on what ran before. Another precision is only for a teacher's
    logits, which belong to the training.
    """
    inputs = rows.select_columns(input_columns(rows, model))
    batches = by_length(rows, batch_size)
    return _logits(model, batches, inputs.__getitem__, tokenizer, precision=precision, phase=phase)


def logits_of(model: nn.Module, inputs: Mapping[str, Sequence[Any]], tokenizer: Any, *, batch_size: int) -> Tensor:
    """The same for rows that `encode` has made, without labels: it needs transformers alone, and not datasets."""

    def take(numbers: Sequence[int]) -> dict[str, list[Any]]:
        return {name: [values[number] for number in numbers] for name, values in inputs.items()}

    return _logits(model, by_length(inputs, batch_size), take, tokenizer)


def _logits(
    model: nn.Module,
    batches: Iterable[list[int]],
    take: Callable[[list[int]], Mapping[str, list[Any]]],
    tokenizer: Any,
    *,
    precision: str = EVALUATION_PRECISION,
    phase: Phase | None = None,
) -> Tensor:
    """Logits of the rows of the batches, by number; `take` gives the columns of a batch."""
    model.eval()
    place = next((t.device for t in [*model.parameters(), *model.buffers()]), torch.device("cpu"))
    collate = DataCollatorWithPadding(tokenizer)
    parts, order = [], []
    with torch.inference_mode(), arithmetic(place, precision):
        for numbers in batches:
            fields = take(numbers)
            batch = collate([dict(zip(fields, values, strict=True)) for values in zip(*fields.values(), strict=True)])
            parts.append(model(**batch.to(place)).logits.float().cpu())
            order.extend(numbers)
            if phase is not None:
                phase.update(len(order))
    logits = torch.cat(parts)
    return torch.empty_like(logits).index_copy_(0, torch.tensor(order), logits)


def evaluate_model(
    model: nn.Module,
    task: Task,
    splits: Mapping[str, Dataset],
    tokenizer: Any,
    *,
    batch_size: int,
    reporter: Reporter,
    name: str = "evaluating",
    right: list[bool] | None = None,
    kept: dict[str, NDArray[Any]] | None = None,
) -> dict[str, float]:
    """The task's metrics over its tokenised validation splits, by name.

    `sparseq.tasks.score` reduces them to one number. right: gets, for each row of all splits in order, whether the
    class was right, unless the task is a regression. kept: gets the logits [rows, labels] of each split. Raises
    InputError if logits are not finite.
    """
    per_split = {}
    with reporter.phase(name, sum(len(rows) for rows in splits.values())) as phase:
        for split, rows in splits.items():
            before = phase.done
            logits = predict_logits(model, rows, tokenizer, batch_size=batch_size)
            phase.update(before + len(rows))
            if not torch.isfinite(logits).all():
                raise InputError(
                    f"the model's predictions on {split} hold NaN or infinity, first in layer "
                    f"{_where(model, rows, tokenizer, logits)}: train it with a lower --lr"
                )
            labels = rows.with_format("numpy")["labels"][:]
            per_split[split] = compute_metrics(task, logits.numpy(), labels)
            if kept is not None:
                kept[split] = logits.numpy()
            if right is not None and not task.is_regression:
                right.extend((logits.numpy().argmax(-1) == labels).tolist())
        metrics = merge_splits(task, per_split)
        phase.update(phase.total, "  ".join(f"{key} {value:.4f}" for key, value in metrics.items()))
    return metrics


def _where(model: nn.Module, rows: Dataset, tokenizer: Any, logits: Tensor) -> str:
    """The first layer with a non-finite output, on the first row with non-finite logits, computed the same way."""
    number = int((~torch.isfinite(logits)).any(dim=1).nonzero()[0, 0])
    inputs = {key: rows[number][key] for key in input_columns(rows, model)}
    place = next((t.device for t in [*model.parameters(), *model.buffers()]), torch.device("cpu"))
    batch = dict(DataCollatorWithPadding(tokenizer)([inputs]).to(place))
    with arithmetic(place):
        return find_nonfinite(model, batch) or "unknown"


def own_rows(task: Task, recipe: Recipe, tokenizer: Any, model: nn.Module) -> list[Dataset]:
    """The tokenised rows of a finished run's own validation splits."""
    data = load_data(task, **validation_source(recipe), with_train=False)
    return [tokenise(part, tokenizer, recipe.max_length, model) for part in data.validations.values()]


def finished(folder: str | Path) -> tuple[Task, Recipe]:
    """A finished run's task and recipe, from its folder or from an ONNX file that was exported from it."""
    if is_onnx(folder):
        return read_run(folder).finished(folder)
    run = RunFolder(folder)
    return Task.from_dict(run.metrics()["task_definition"]), Recipe.from_file(run.path / RECIPE)


def load_folder(folder: str | Path) -> tuple[nn.Module, Any]:
    """(model in eval mode on the device of this process, tokenizer) of a finished run's folder, or of an ONNX file that
    was exported from it, which runs on the CPU.

    Raises InputError if either is not what the run saved.
    """
    quiet_libraries()
    if is_onnx(folder):
        return OnnxModel(folder), saved_tokenizer(folder)
    model = checkpoint.load(folder)
    return model.to(hardware.device()), saved_tokenizer(folder)


def saved_tokenizer(folder: str | Path) -> Any:
    """The tokenizer of a finished run's folder, or of the folder that an ONNX file is in.

    Raises InputError if it is not the one that the run saved; this is checked if the versions of transformers and
    tokenizers are the same.
    """
    if is_onnx(folder):
        run = read_run(folder)
        saved, versions, folder = run.tokenizer, run.versions, Path(folder).parent
    else:
        metrics = RunFolder(folder).metrics()
        saved, versions = metrics.get("tokenizer"), metrics.get("versions", {})
    tokenizer = load_tokenizer(folder)
    same_reader = all(versions.get(reader.__name__) == reader.__version__ for reader in (transformers, tokenizers))
    if same_reader and saved not in (None, digest_tokenizer(tokenizer)):
        raise InputError(
            f"the tokenizer in {folder} is not the one that was saved with its model: put that back, or run it again "
            "into a new folder"
        )
    return tokenizer
