"""`export`: the model of a finished run as an ONNX file, with what evaluating and predicting need."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from sparseq import checkpoint
from sparseq.errors import InputError
from sparseq.onnx import export_onnx, is_onnx
from sparseq.onnx.replace import quantized_linears
from sparseq.tasks import Task

from .calibrating import batches_of
from .data import tokenise
from .folder import RunFolder
from .onnx_run import OnnxRun
from .prepare import read_data
from .progress import Reporter
from .quiet import quiet_libraries
from .recipe import Recipe
from .scoring import finished, saved_tokenizer


@dataclass(frozen=True)
class Exported:
    """An exported file. bytes: its size. integer_products: linear layers that are products of integers."""

    path: Path
    form: str
    bytes: int
    integer_products: int


def export(
    folder: str | Path,
    path: str | Path,
    form: str = "integer",
    *,
    calibration_rows: int | None = None,
    reporter: Reporter | None = None,
) -> Exported:
    """Writes the model of a finished run as an ONNX file, and its config.json and tokenizer beside it.

    The file also holds the run's task and recipe: `evaluate` and `predict` take it like the run's folder.

    form: see `sparseq.export_onnx`. calibration_rows: with "qdq", and a run with dynamic activations, the number of
    training rows that static scales are found from.

    Raises InputError like `sparseq.export_onnx`, for an unfinished or damaged folder, and for training rows that are
    needed and cannot be read.
    """
    if is_onnx(folder):
        raise InputError(f"{folder} is exported already: give the folder of its run")
    task, recipe = finished(folder)
    quiet_libraries()
    tokenizer = saved_tokenizer(folder)
    model = checkpoint.load(folder)
    batches = None
    if form == "qdq" and _has_dynamic(model):
        if calibration_rows is None:
            raise InputError(
                f"the model in {folder} finds the scales of its activations in each call, and the form qdq needs them "
                "before: give --calibration-rows N to find them from training rows, or --form integer"
            )
        batches = _batches(task, recipe, tokenizer, model, calibration_rows, reporter or Reporter())
    elif calibration_rows is not None:
        raise InputError("--calibration-rows goes with --form qdq and a run of dynamic activations: leave it out")
    metadata = OnnxRun.of(task, recipe, RunFolder(folder).metrics()).metadata()
    written = export_onnx(model, path, form, batches=batches, tokenizer=tokenizer, metadata=metadata)
    return Exported(written, form, os.path.getsize(written), len(quantized_linears(model)))


def _has_dynamic(model: nn.Module) -> bool:
    return any(layer.input_scale is None for layer in quantized_linears(model).values())


def _batches(
    task: Task, recipe: Recipe, tokenizer: object, model: nn.Module, count: int, reporter: Reporter
) -> Iterator[dict[str, Tensor]]:
    data = read_data(recipe, task=task)
    assert data.train is not None
    rows = tokenise(data.train, tokenizer, recipe.max_length, model)
    reporter.say(f"activations get one scale for each layer, found from {min(count, len(rows)):,} training rows")
    return batches_of(rows, model, tokenizer, recipe, count)
